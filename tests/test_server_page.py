"""The page at /: its files as they are served, and what it does in a browser."""

import json
import re
import subprocess
from urllib.parse import quote

import httpx
import pytest
from browser import FOUND, browser
from fake_engine import write_bank
from serving_helpers import QUICK, served
from test_server_process import FIXTURE, process, real_bank
from tiny_bank import GROUP

from weft.server import page_files

MARKUP = "<img src=x onerror=document.title='taken'><b>bold</b> \"quoted\" & 'more'"
KEY = "a-good-key-of-a-server"
LONGEST = 64 << 10  # bytes of all files of the page
needs_browser = pytest.mark.skipif(FOUND is None, reason="chromium is not installed here")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    many = {f"many/{number:03}": {"shares": False} for number in range(120)}
    named = {
        "banking": {},
        "spam": {"source": "{title}: {text}"},
        "poem": {"closed": False, "source": "A poem of {text}"},
        "broken": {"shares": False},
        MARKUP: {"source": "<i>{<u>field</u>}</i>"},
    }
    bank = write_bank(tmp_path_factory.mktemp("bank"), **named, **many)
    with served(bank, QUICK.model_copy(update={"text_signs": 1000})) as running:
        yield running


# the files


def served_files(server):
    with server.client() as http:
        return {path: http.get(path) for path in page_files.files()}


def test_files_are_bound_by_the_policy_and_have_their_types(server):
    for path, reply in served_files(server).items():
        assert reply.status_code == 200
        policy = dict(
            part.strip().partition(" ")[::2] for part in reply.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        kind = {"/": "text/html", ".js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[
            path[-3:]
        ]
        assert reply.headers["content-type"].split(";")[0] == kind


def test_files_name_no_other_place_and_make_no_markup(server):
    files = {path: reply.text for path, reply in served_files(server).items()}
    assert sum(map(len, files.values())) < LONGEST
    for path, text in files.items():
        foreign = set(re.findall(r"(?:https?:)?//[a-z0-9][\w.-]*\.\w+[^\s\"')]*", text))
        assert foreign <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|srcdoc", text
        ), path
        assert not re.search(r"<style|<script(?! type=\"module\" src=)|\son\w+=\"|\sstyle=", text), path


def test_modules_import_what_there_is(server):
    files = served_files(server)
    for path, reply in files.items():
        for name in re.findall(r"from \"\./([^\"]+)\"", reply.text):
            assert f"/{name}" in files, path


# in a browser


@pytest.fixture(scope="module")
def chromium():
    with browser() as tab:
        yield tab


@pytest.fixture
def tab(chromium):
    """The tab, which must have nothing to complain of when the test ends."""
    chromium.events.clear()
    chromium.size(1400)
    yield chromium
    assert chromium.complaints() == []


def ask(tab, server, link, **fields):
    """Open tasks, and run with some fields."""
    tab.open(f"{server.url}/#{link}")
    tab.see("#question")
    for name, text in fields.items():
        tab.type(f"#field-{name}", text)
    tab.press("Enter")


def ask_slowly(tab, server):
    """Let the engine write for half a minute."""
    tab.open(f"{server.url}/#task=poem")
    tab.see("#question")
    tab.run("document.querySelector('#most').value = 90")
    tab.type("#field-text", "slow " * 90)
    tab.press("Enter")


def rows_of(tab):
    """Task -> its answers with their probabilities, as cards show them."""
    code = """[...document.querySelectorAll('.card')].map((card) => [
      card.querySelector('h3')?.textContent ?? '',
      [...card.querySelectorAll('.bars li')].map(({ children }) =>
        [children[0].textContent, children[2].textContent])])"""
    return {name: dict(bars) for name, bars in tab.run(code)}


@needs_browser
def test_head_and_list(tab, server):
    tab.open(server.url)
    tab.until("document.querySelectorAll('#tasks li').length === 50")
    assert "125 tasks · generation 1 · base made up" in tab.text("#bank")
    assert tab.text("#found") == "the first 50 of 125 tasks"
    tab.click("#more")
    tab.until("document.querySelectorAll('#tasks li').length === 100")
    tab.click("#more")
    tab.until("document.querySelectorAll('#tasks li').length === 125")
    assert not tab.run("document.querySelector('#more').checkVisibility()")
    names = tab.run("[...document.querySelectorAll('#tasks li')].map((li) => li.dataset.name)")
    assert names == sorted(names)
    assert tab.run("document.activeElement.closest('li').dataset.name") == names[100]


@needs_browser
def test_search_is_the_servers(tab, server):
    tab.open(server.url)
    tab.see("#tasks li")
    tab.type("#query", "many")
    tab.until("document.querySelector('#found').innerText === 'the first 50 found among 125'")
    tab.click("#more")
    tab.until("document.querySelectorAll('#tasks li').length === 100")
    tab.type("#query", "/11")
    tab.until("document.querySelector('#found').innerText === '10 found among 125'")
    tab.press("ArrowDown")
    tab.press("ArrowDown")
    tab.press("Enter")
    tab.until("document.querySelector('h2')?.innerText === 'many/111'")
    assert tab.run("location.hash") == "#task=many%2F111"
    tab.type("#query", "nothing like it")
    tab.until("document.querySelector('#found').innerText === 'No task has this in its name.'")


@needs_browser
def test_a_task_and_its_answer(tab, server):
    ask(tab, server, "task=spam", title="money", text="free")
    tab.see(".bars")
    facts = tab.text(".facts")
    for said in ("{title}: {text}", "spam-yes", "up to 20 tokens", "accuracy 91.50", "3 virtual tokens"):
        assert said in facts
    assert rows_of(tab) == {"": {"spam-yes": "75.0 %", "spam-no": "25.0 %"}}
    assert "2 tokens read · 3 virtual tokens · generation 1" in tab.text("#result")
    assert tab.run("document.querySelector('.is-best .bar > span').style.width") == "75%"
    assert tab.run("document.activeElement.id") == "field-text"
    assert tab.run("document.querySelector('#told').textContent") == "spam: spam-yes, 75.0 %"
    command = tab.run("document.querySelector('.curl pre').textContent")
    body = json.loads(re.search(r"-d '(.*)'", command)[1])
    assert body == {"model": "spam", "inputs": {"title": "money", "text": "free"}}
    assert f"curl '{server.url}/v1/classify'" in command


@needs_browser
def test_finished_text_goes_without_the_template(tab, server):
    tab.open(f"{server.url}/#task=spam")
    tab.see("#question")
    tab.click("input[name=form]:not(:checked)")
    tab.type("#finished", "one two three")
    tab.press("Enter")
    assert tab.run("document.querySelector('#finished').value") == "one two three\n"
    tab.press("Enter", 2)
    tab.see(".bars")
    assert "3 tokens read" in tab.text("#result")


@needs_browser
def test_tasks_side_by_side_from_one_request(tab, server):
    tab.open(f"{server.url}/#task=banking")
    tab.see("#question")
    tab.type("#field-text", "kept")
    tab.type("#query", "spam")
    tab.until("document.querySelectorAll('#tasks li').length === 1")
    tab.click("#tasks button")
    tab.see("#field-title")
    assert tab.run("document.querySelector('#field-text').value") == "kept"
    tab.type("#field-title", "x")
    tab.press("Enter")
    tab.see(".bars")
    odds = {name: {f"{name}-yes": "75.0 %", f"{name}-no": "25.0 %"} for name in ("banking", "spam")}
    assert rows_of(tab) == odds
    assert sum("/v1/classify" in one for one in tab.asked()) == 1
    assert tab.run("location.hash") == "#task=banking&task=spam"


@needs_browser
def test_a_whole_group_with_faults_in_their_places(tab, server):
    ask(tab, server, f"task=banking&group={GROUP}", text="free")
    tab.see("#result .card")
    assert set(rows_of(tab)) == {"banking", "spam", MARKUP}
    assert "the row has no 'title'" in tab.text("#result")


@needs_browser
def test_written_answers_come_in_pieces(tab, server):
    ask(tab, server, "task=poem", text="the sea")
    tab.until("document.querySelector('#result').innerText.includes('first piece after')")
    assert tab.text(".written") == "poem says A poem of the sea"
    assert "5 tokens read, 7 written" in tab.text("#result")
    assert "curl -N" in tab.run("document.querySelector('.curl pre').textContent")


@needs_browser
def test_a_cut_text_is_said_to_be(tab, server):
    ask(tab, server, "task=banking", text="word " * 21)
    tab.see("#result .note")
    assert tab.text("#result .note") == "The text is longer than the task reads (20 tokens): its end was cut."
    ask(tab, server, "task=poem", text="word " * 21)
    tab.until("document.querySelector('#result').innerText.includes('first piece after')")
    assert "(20 tokens): its end was cut" in tab.text("#result")


@needs_browser
def test_a_stream_can_be_stopped(tab, server):
    ask_slowly(tab, server)
    tab.until("document.querySelector('.written')?.innerText.length > 5")
    assert tab.text("#run") == "Stop"
    tab.click("#run")
    tab.until("document.querySelector('#result').innerText.startsWith('Stopped.')")
    assert tab.text("#run") == "Run"


@needs_browser
def test_nobodys_text_becomes_markup(tab, server):
    tab.open(f"{server.url}/#task={quote(MARKUP)}")
    tab.see("#question")
    assert tab.text("h2") == MARKUP
    tab.type("textarea", MARKUP)
    tab.press("Enter")
    tab.see(".bars")
    assert rows_of(tab)[""] == {f"{MARKUP}-yes": "75.0 %", f"{MARKUP}-no": "25.0 %"}
    assert tab.text("main label[for^=field]") == "<u>field</u>"
    ask(tab, server, "task=poem", text=MARKUP)
    tab.until("document.querySelector('#result').innerText.includes('first piece after')")
    assert MARKUP.partition(' "')[0] in tab.text(".written")
    tab.open(f"{server.url}/#task={quote(MARKUP.replace('bold', 'bald'))}")
    tab.see(".problem a")
    assert tab.run("document.querySelectorAll('img, main i, main u, h2 b').length") == 0
    assert "taken" not in tab.run("document.title").split()


@needs_browser
def test_errors_are_the_servers(tab, server):
    tab.open(f"{server.url}/#task=spaam")
    tab.see(".problem")
    assert "there is no task 'spaam'" in tab.text(".problem")
    assert "status 404 · code model_not_found" in tab.text(".problem")
    tab.click(".problem a")
    tab.until("document.querySelector('h2')?.innerText === 'spam'")
    ask(tab, server, "task=banking", text="x" * 1001)
    tab.see("#result .problem")
    assert "inputs: a text of 1001 characters, and 1000 is the most" in tab.text("#result")
    ask(tab, server, "task=broken", text="free")
    tab.see("#result .problem")
    assert "this task" not in tab.text("h2")


@needs_browser
def test_load_is_shown(tab, server):
    ask_slowly(tab, server)
    tab.until("document.querySelector('#load').innerText.includes('Running\\n1')")
    assert "ready" in tab.text("#load")
    tab.click("#run")


@needs_browser
def test_figures_of_the_load(tab, server):
    tab.open(server.url)
    text = """
weft_refused_total{reason="rows"} 2.0
weft_refused_total{reason="key"} 1.0
weft_refused_created{reason="key"} 1.7e+09
weft_tokens_total{kind="prompt"} 1e+03
weft_tokens_total{kind="virtual"} 500.0
weft_tokens_total{kind="completion"} 20.0
weft_waiting_answers 7.0
weft_waiting_tokens 99.0
weft_ready 1.0
"""
    found = tab.run(f"import('./load.js').then((load) => load.figures({json.dumps(text)}))")
    assert found == {
        "ready": True, "generation": 0, "running": 0, "waiting": 7, "refused": 3, "failed": 0, "tokens": 1020,
    }  # fmt: skip
    speed = "load.rate({ at: 1000, tokens: 20 }, { at: 3000, tokens: 1020 })"
    assert tab.run(f"import('./load.js').then((load) => {speed})") == 500


@needs_browser
def test_quotes_of_commands(tab, server):
    tab.open(server.url)
    body = {"model": "it's", "inputs": "a\n'b' $HOME `x`"}
    code = f"import('./curl.js').then((curl) => curl.command('v1/classify', {json.dumps(body)}))"
    script = tab.run(code).replace("curl ", "printf '%s\\n' ", 1)
    said = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert json.loads(said[-1]) == body


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_narrow_windows_need_no_scrolling_sideways(tab, server, dark):
    for link in ("task=spam", f"task={quote(MARKUP)}", f"task=banking&group={GROUP}"):
        tab.size(390, dark=dark)
        ask(tab, server, link)
        tab.click("#run")
        tab.see(".curl summary")
        tab.click(".curl summary")
        assert tab.run("document.documentElement.scrollWidth") <= 390
    tab.size(1400)


CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const found = rgb(getComputedStyle(node).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.outerHTML.slice(0, 100));
  }
  return poor;
})()"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_texts_can_be_read(tab, server, dark):
    """WCAG AA: a contrast of 4.5 or more, of whatever text is shown."""
    tab.size(1400, dark=dark)
    ask(tab, server, f"task=banking&group={GROUP}", text="free")
    tab.see("#result .problem")
    tab.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert tab.run(CONTRAST) == []
    ground = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark
    tab.run(f"document.body.style.color = '{ground}'")
    assert tab.run(CONTRAST) != []  # it sees what is poor


@needs_browser
def test_everything_has_a_name_for_screen_readers(tab, server):
    ask(tab, server, "task=spam&task=banking", title="x", text="free")
    tab.see(".bars")
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    named = ("textbox", "searchbox", "button", "link", "radio", "navigation", "form", "region")
    said = [
        (one["role"]["value"], one.get("name", {}).get("value", "")) for one in tree if not one["ignored"]
    ]
    assert [role for role, name in said if role in named and not name.strip()] == []
    assert ("textbox", "title") in said
    assert ("button", "Compare banking") in said
    assert ("region", "Result") in said


@needs_browser
@pytest.mark.slow
def test_a_real_model_behind_it(tab, tmp_path):
    """A server as a process: the page shows the numbers that its API gives."""
    command = ("-m", "weft", "serve", real_bank(tmp_path), "--port", 0, "--base", FIXTURE / "base")
    with process(*command) as (_, url):
        tab.open(f"{url}/#task=alpha&task=gamma")
        tab.see("#field-text")
        tab.type("#field-text", "the good film is")
        tab.press("Enter")
        tab.see(".bars")
        shown = rows_of(tab)
        asked = {"model": ["alpha", "gamma"], "inputs": {"text": "the good film is"}}
        told = httpx.post(f"{url}/v1/classify", json=asked, trust_env=False).json()["data"]
        for one in told:
            assert shown[one["model"]] == {
                word: f"{odds:.1%}".replace("%", " %") for word, odds in one["probabilities"].items()
            }


@needs_browser
def test_keys_are_asked_for_and_kept_for_the_tab_alone(tab, tmp_path):
    with served(write_bank(tmp_path, spam={}), keys=(KEY,)) as running:
        tab.open(f"{running.url}/#task=spam")
        tab.see("#key")
        assert tab.run("document.activeElement.id") == "key"
        tab.type("#key", "a-wrong-key-of-a-server")
        tab.press("Enter")
        tab.until("document.body.innerText.includes('not one of the server')")
        tab.type("#key", KEY)
        tab.press("Enter")
        tab.see("#question")
        tab.type("#field-text", "free")
        tab.press("Enter")
        tab.see(".bars")
        assert KEY not in tab.run("document.querySelector('.curl pre').textContent")
        assert "$WEFT_API_KEY" in tab.run("document.querySelector('.curl pre').textContent")
        assert tab.run("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
        tab.open(f"{running.url}/#task=spam")
        tab.see("#question")
        tab.click("#forget")
        tab.see("#key")
        assert tab.run("sessionStorage.length") == 0


@needs_browser
def test_a_new_generation_is_noticed(tab, tmp_path):
    bank = write_bank(tmp_path, spam={})
    with served(bank) as running:
        tab.open(running.url)
        tab.until("document.querySelector('#bank').innerText.includes('1 task · generation 1')")
        write_bank(tmp_path, spam={}, ham={})
        tab.until("document.querySelector('#bank').innerText.includes('2 tasks · generation 2')")


@needs_browser
def test_a_server_that_is_gone_is_said(tab, tmp_path):
    with served(write_bank(tmp_path, spam={})) as running:
        tab.open(f"{running.url}/#task=spam")
        tab.see("#question")
    tab.press("Enter")
    tab.type("#field-text", "free")
    tab.press("Enter")
    tab.see("#result .problem")
    assert "cannot be reached" in tab.text("#result")
    tab.until("document.querySelector('#load').innerText.includes('cannot be reached')")


@needs_browser
def test_nothing_else_is_asked(tab, server):
    ask(tab, server, "task=spam", title="x", text="free")
    tab.see(".bars")
    assert {one.split("/")[2] for one in tab.asked() if not one.startswith("about:")} == {
        server.url.split("/")[2]
    }
