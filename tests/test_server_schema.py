"""Made-up requests after the OpenAPI document: no fault of the server, and no status that is not told of."""

import pytest
import schemathesis
from fake_engine import write_bank
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from serving_helpers import QUICK, served
from test_server_process import fake

from weft.server.settings import ServeConfig

# schemathesis draws by `random` too
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
TASKS = (None, "poem", "banking", "broken")  # a made-up name says nothing but that it is unknown


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    bank = write_bank(tmp_path_factory.mktemp("bank"), poem={"closed": False}, banking={}, broken={})
    limits = ServeConfig.model_validate({**QUICK.model_dump(), "receive_seconds": 5})
    with served(bank, limits) as running:
        yield running


def run(url, cases):
    """So many requests to each operation, half of them against the document; the statuses they got."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    counts = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            counts.setdefault(operation.label, []).extend(asked(operation, mode, cases // 2))
    return counts


def asked(operation, mode, cases):
    """Statuses of made-up requests; none may be 500, and each must be described."""
    described = {int(status) for status in operation.definition.raw["responses"]} | {400, 404, 405}
    found = []

    @given(case=operation.as_strategy(generation_mode=mode), task=st.sampled_from(TASKS))
    @settings(
        max_examples=cases, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def ask(case, task):
        if task and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = task
        reply = case.call(timeout=60)
        found.append(reply.status_code)
        assert reply.status_code in described - {500}, f"{reply.status_code}: {case.as_curl_command()}"

    try:
        ask()
    except Unsatisfiable:
        if mode is GenerationMode.POSITIVE:  # nothing speaks against the document where it takes nothing
            raise
    return found


def test_some_requests(server):
    counts = run(server.url, 40)  # of 20 after the document none without an answer: once in ten thousand runs
    assert len(counts) == 9
    assert 200 in counts["POST /v1/completions"]
    assert server.service.ready


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_thousand_requests(tmp_path):
    """As the test above, against a server in a process of its own; what it answered is printed."""
    bank = write_bank(tmp_path / "bank", poem={"closed": False}, banking={}, broken={})
    with fake(bank) as (one, url):
        counts = run(url, 4600)
        print({label: {one: found.count(one) for one in set(found)} for label, found in counts.items()})
        assert sum(map(len, counts.values())) >= 20_000
        assert one.poll() is None
