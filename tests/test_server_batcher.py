"""The batcher under every order of events: whose question an answer is to, bounds, turns, deadlines, poison.

A made-up worker answers in any order, late, twice, or not at all; no event loop and no clock but the test's.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from weft.server.batcher import Batcher, RefusedError
from weft.server.fair_queue import Bounds, FairQueue, Full
from weft.server.jobs import Asked, Fault, Job
from weft.server.metrics import Metrics
from weft.server.pace import Pace
from weft.server.settings import ServeConfig

SMALL = ServeConfig(queue_rows=8, queue_tokens=100, running_rows=4, running_tokens=40, share=0.5)
TASKS = ("a", "b", "c")


def job(task="a", text="x", *, rows=1, key="all", deadline=100.0, generation=1, tokens=5):
    tasks = [task] * rows if isinstance(task, str) else task
    content = {"text": text}
    return Job(tuple(Asked(one, generation, f"sha-{one}", content, tokens) for one in tasks), key, deadline)


class World:
    """A batcher with a worker that does as it is told."""

    def __init__(self, limits=SMALL, **more):
        self.now, self.sent, self.metrics = 0.0, [], Metrics()
        self.batcher = Batcher(limits, self.sent.append, lambda: self.now, self.metrics, **more)
        self.batcher.connected = True

    @property
    def asked(self):
        return [one for message in self.sent if message["do"] == "ask" for one in message["requests"]]

    @property
    def dropped(self):
        return [message["id"] for message in self.sent if message["do"] == "drop"]


def answer(request, **other):
    task = request["task"]
    told = {"is": "answer", "id": request["id"], "task": task, "generation": 1, "sha256": f"sha-{task}"}
    return {**told, "written": f"{task} says {request['text']}", "error": None, **other}


def inbox(one):
    found = []
    while not one.inbox.empty():
        found.append(one.inbox.get_nowait())
    return found


def count(counter):
    return counter._value.get()


class Races(RuleBasedStateMachine):
    """Submissions, answers in any order, cancels and deaths, interleaved: nobody gets another's answer."""

    @initialize()
    def begin(self):
        self.world = World()
        self.jobs, self.received, self.cancelled = [], {}, set()
        self.late = []  # questions that some worker got, of which answers may come at any time
        self.number = 0

    @rule(tasks=st.lists(st.sampled_from(TASKS), min_size=1, max_size=3), life=st.floats(0, 5))
    def submit(self, tasks, life):
        self.number += 1
        new = job(tasks, f"text {self.number}", deadline=self.world.now + life)
        try:
            self.world.batcher.submit(new)
        except RefusedError:
            return
        self.jobs.append(new)
        self.received[new] = []

    @rule(pick=st.randoms(use_true_random=False), piece=st.booleans(), forget=st.booleans())
    def hear(self, pick, piece, forget):
        """Any question ever sent is answered, be it cancelled, answered already, or of a dead worker."""
        self.late += self.world.asked
        self.world.sent[:] = [one for one in self.world.sent if one["do"] != "ask"]
        if self.late:
            request = pick.choice(self.late)
            told = answer(request)
            self.world.batcher.hear({**told, "is": "piece", "text": told["written"]} if piece else told)
            if forget:
                self.late.remove(request)

    @rule(pick=st.randoms(use_true_random=False))
    def crossed(self, pick):
        """A broken engine: an answer under the id of another question, or of other numbers."""
        self.late += self.world.asked
        self.world.sent[:] = [one for one in self.world.sent if one["do"] != "ask"]
        if self.late:
            one, other = pick.choice(self.late), pick.choice(self.late)
            if one["task"] != other["task"]:
                self.world.batcher.hear({**answer(one), "id": other["id"]})
            else:
                self.world.batcher.hear(answer(one, sha256="another"))

    @precondition(lambda self: self.jobs)
    @rule(pick=st.randoms(use_true_random=False))
    def cancel(self, pick):
        gone = pick.choice(self.jobs)
        self.world.batcher.cancel(gone)
        self.cancelled.add(gone)

    @rule()
    def die(self):
        self.world.batcher.lost("ended")

    @rule()
    def start(self):
        self.world.batcher.connected = True
        self.world.batcher.pump()

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds):
        self.world.now += seconds
        self.world.batcher.pump()

    @invariant()
    def everybody_has_their_own(self):
        for one in self.jobs:
            self._receive(one)
            by_id = {asked.id: asked for asked in one.asked}
            for told in self.received[one]:
                if not isinstance(told, Fault):
                    asked = by_id[told["id"]]
                    said = told["text"] if told["is"] == "piece" else told["written"]
                    assert said == f"{asked.task} says {asked.content['text']}"

    @invariant()
    def each_question_is_answered_once_or_the_job_fails(self):
        for one in self.jobs:
            told = self._receive(one)
            ids = [each["id"] for each in told if not isinstance(each, Fault) and each["is"] == "answer"]
            assert len(ids) == len(set(ids))
            faults = [each for each in told if isinstance(each, Fault)]
            over = len(ids) == len(one.asked) or bool(faults) or one in self.cancelled
            assert over == (not one.left)
            assert len(faults) <= 1

    @invariant()
    def the_books_balance(self):
        batcher, queue = self.world.batcher, self.world.batcher.queue
        waiting = list(queue)
        assert queue.rows == sum(one.rows for one in waiting) <= SMALL.queue_rows + 3
        assert queue.tokens == sum(one.tokens for one in waiting)
        assert all(one.left for one in waiting)
        running = [asked for _, asked in batcher._running.values()]
        assert batcher._running_tokens == sum(one.tokens for one in running)
        assert sum(batcher.uses.values()) == sum(bool(one.left) for one in self.jobs)
        assert batcher.idle == (not any(one.left for one in self.jobs))

    def _receive(self, one):
        self.received[one] += inbox(one)
        return self.received[one]

    def teardown(self):
        """Once all has come and all is cancelled, nothing is left."""
        for one in getattr(self, "jobs", []):
            self.world.batcher.cancel(one)
        if hasattr(self, "world"):
            assert self.world.batcher.idle
            assert self.world.batcher.running == self.world.batcher.queue.rows == 0


Races.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRaces = Races.TestCase


@pytest.mark.slow
class TestRacesLong(Races.TestCase):
    settings = settings(max_examples=3000, stateful_step_count=60, deadline=None)


def test_an_answer_of_other_numbers_is_withheld():
    world = World()
    mine = job("a")
    world.batcher.submit(mine)
    world.batcher.hear(answer(world.asked[0], sha256="sha-b"))
    [fault] = inbox(mine)
    assert fault.reason == "mismatch"
    assert count(world.metrics.mismatched) == 1
    assert world.batcher.idle


@pytest.mark.parametrize(
    "wrong", [{"task": "b"}, {"generation": 2}, {"sha256": ""}, {"task": "b", "sha256": "sha-b"}]
)
def test_every_fact_is_checked(wrong):
    world = World()
    mine = job("a")
    world.batcher.submit(mine)
    world.batcher.hear(answer(world.asked[0], **wrong))
    assert isinstance(inbox(mine)[0], Fault)


def test_an_engine_that_refuses_need_not_know_the_numbers():
    world = World()
    mine = job("a")
    world.batcher.submit(mine)
    told = answer(world.asked[0], generation=0, sha256="", error="no text", written=None, probabilities=None)
    world.batcher.hear(told)
    assert inbox(mine) == [told]


def test_full_queue_refuses_at_once():
    world = World(SMALL.model_copy(update={"share": 1.0}))
    world.batcher.connected = False
    for _ in range(8):
        world.batcher.submit(job())
    with pytest.raises(RefusedError) as caught:
        world.batcher.submit(job())
    assert caught.value.reason == "rows"
    assert caught.value.seconds >= 1
    world = World(SMALL.model_copy(update={"share": 1.0}))
    world.batcher.connected = False
    world.batcher.submit(job(tokens=99))
    with pytest.raises(RefusedError, match="tokens"):
        world.batcher.submit(job(tokens=2))


def test_one_task_leaves_room_for_others():
    world = World()
    world.batcher.connected = False
    for _ in range(4):
        world.batcher.submit(job("a"))
    with pytest.raises(RefusedError, match="task"):
        world.batcher.submit(job("a"))
    world.batcher.submit(job("b"))


def test_one_key_leaves_room_for_others():
    world = World(several_keys=True)
    world.batcher.connected = False
    for task in ("a", "b", "c", "d"):
        world.batcher.submit(job(task, key="one"))
    with pytest.raises(RefusedError, match="key"):
        world.batcher.submit(job("e", key="one"))
    world.batcher.submit(job("a", key="two"))


def test_expired_jobs_are_not_worked_on():
    world = World()
    world.batcher.connected = False
    late, timely = job("a", "late", deadline=1.0), job("a", "timely", deadline=9.0)
    world.batcher.submit(late)
    world.batcher.submit(timely)
    world.now, world.batcher.connected = 2.0, True
    world.batcher.pump()
    assert [one["text"] for one in world.asked] == ["timely"]
    assert inbox(late)[0].reason == "expired"


def test_a_wait_beyond_the_deadline_is_refused():
    """40 tokens a second are measured; so 100 that wait leave no time to one that has a second."""
    world = World(SMALL.model_copy(update={"queue_tokens": 10_000, "queue_rows": 1000}))
    for _ in range(12):
        world.batcher.submit(job(tokens=20, deadline=1000.0))
        world.now += 0.5
        world.batcher.hear(answer(world.asked[-1]))
    assert world.batcher.pace.rate == pytest.approx(40, rel=0.05)
    world.batcher.connected = False
    for _ in range(5):
        world.batcher.submit(job(tokens=20, deadline=world.now + 1000))
    with pytest.raises(RefusedError, match="wait") as caught:
        world.batcher.submit(job(tokens=20, deadline=world.now + 1))
    assert caught.value.seconds == 3  # 120 tokens at 40 a second
    world.batcher.submit(job(tokens=20, deadline=world.now + 10))
    world.batcher.submit(job("b", tokens=5, deadline=world.now + 1))  # its task's turn comes soon


def test_a_pace_that_halves_leaves_nobody_late():
    """Ten times more than are answered, on a model that is at times half as fast: nobody admitted is late."""
    roomy = SMALL.model_copy(update={"queue_tokens": 10_000, "queue_rows": 1000, "running_rows": 1})
    pick, world = random.Random(0), World(roomy)
    admitted, spare, free = {}, [], 0.0
    world.batcher.pace.begin(-1.0)
    world.batcher.pace.add(100, 0.0)  # what it did before
    while world.now < 60:
        world.now += 0.02
        one = job(tokens=20, deadline=world.now + 5)
        try:
            world.batcher.submit(one)
            admitted[one.asked[0].id] = one
        except RefusedError:
            pass
        if world.batcher.running and world.now >= free:
            now = admitted.pop(world.asked[-1]["id"])
            world.batcher.hear(answer(world.asked[-1]))
            spare.append(now.deadline - world.now)
            free = world.now + pick.uniform(0.8, 1.2) * (0.4 if world.now % 20 > 10 else 0.2)
    assert 150 < len(spare) < 250  # of 3,000
    assert min(spare) > 0
    assert not [one for one in admitted.values() if one.deadline < world.now]


def test_who_is_alone_is_not_sent_away():
    """However slow the last ones were: no other time is better."""
    world = World()
    world.batcher.pace.begin(-10.0)
    world.batcher.pace.add(1, 0.0)
    one, other = job(tokens=5, deadline=1.0), job(tokens=5, deadline=1.0)
    world.batcher.submit(one)
    with pytest.raises(RefusedError, match="wait"):
        world.batcher.submit(other)
    world.batcher.hear(answer(world.asked[-1]))
    world.batcher.uses[1] += 1  # as of a request that is looked at, which keeps its generation
    world.batcher.submit(other)


def test_single_short_answers_make_a_slow_beginning_forgotten():
    """A first answer of ten seconds, then ones of 20 ms, between pauses: soon several wait again."""
    world = World(SMALL.model_copy(update={"queue_tokens": 10_000, "queue_rows": 1000}))
    for seconds in [10.0] + [0.02] * 200:
        world.batcher.submit(job(tokens=10, deadline=world.now + 5))
        world.now += seconds
        world.batcher.hear(answer(world.asked[-1]))
        world.now += 1.0  # nobody asks
    assert world.batcher.pace.rate == pytest.approx(500)
    for _ in range(90):  # 900 tokens: 1.8 seconds of 2
        world.batcher.submit(job(tokens=10, deadline=world.now + 5))


def test_what_a_lost_worker_had_says_nothing_of_the_pace():
    """It hung for a minute; the next one is as fast as ever."""
    world = World()
    world.batcher.submit(job(tokens=10, deadline=1000.0))
    world.now = 60.0
    world.batcher.lost("hung")
    world.batcher.connected = True
    world.batcher.submit(job("b", "y", tokens=10, deadline=1000.0))
    world.now += 0.5
    world.batcher.hear(answer(world.asked[-1]))
    assert world.batcher.pace.rate == pytest.approx(20)


def test_the_pace_to_count_on_is_that_of_the_slower_windows():
    """Twelve windows of half a second: the fourth slowest; older ones are forgotten."""
    pace = Pace()
    assert pace.seconds(100) == 0
    pace.begin(0.0)
    for number, rate in enumerate([1000] * 5 + [100, 20, 40, 30, 90, 80, 70, 60, 50, 120, 110, 130], 1):
        pace.add(rate // 2, number * 0.5)
    assert pace.rate == pytest.approx(50)
    assert pace.seconds(100) == pytest.approx(2)


def test_cancelled_rows_are_dropped_in_the_worker():
    world = World()
    mine = job(rows=2)
    world.batcher.submit(mine)
    ids = [one["id"] for one in world.asked]
    world.batcher.hear(answer(world.asked[0]))
    world.batcher.cancel(mine)
    assert world.dropped == ids[1:]
    world.batcher.hear(answer(world.asked[1]))
    assert count(world.metrics.late) == 1
    assert [one["id"] for one in inbox(mine)] == ids[:1]


def test_a_job_larger_than_the_bounds_runs_alone():
    world = World(SMALL.model_copy(update={"queue_rows": 100, "queue_tokens": 1000}))
    small, large, last = job("a"), job("b", rows=20), job("c")
    for one in (small, large, last):
        world.batcher.submit(one)
    assert len(world.asked) == 1
    world.batcher.hear(answer(world.asked[0]))
    assert len(world.asked) == 21  # nobody overtakes it, nobody runs beside it
    for request in world.asked[1:]:
        world.batcher.hear(answer(request))
    assert len(world.asked) == 22


def test_poison_is_found_and_the_innocent_are_served():
    world = World()
    for _ in range(2):  # they share a worker, which dies; then each is tried alone
        jobs = [job("a", "innocent"), job("b", "poison")]
        for one in jobs:
            world.batcher.submit(one)
        if world.batcher.running == 2:
            world.batcher.lost("ended")
            assert [inbox(one)[0].reason for one in jobs] == ["worker", "worker"]
        else:
            assert [one["text"] for one in world.asked[2:]] == ["innocent"]
            world.batcher.hear(answer(world.asked[-1]))
            assert world.asked[-1]["text"] == "poison"
            world.batcher.lost("ended")
        world.batcher.connected = True
    with pytest.raises(RefusedError, match="poison"):
        world.batcher.submit(job("b", "poison"))
    world.batcher.submit(job("a", "innocent"))
    world.batcher.submit(job("a", "another"))
    assert world.batcher.running == 2  # the innocent is no suspect any more


def test_generations_that_no_worker_has_are_given_up():
    world = World()
    world.batcher.connected = False
    old, new = job(generation=1), job(generation=2)
    world.batcher.submit(old)
    world.batcher.submit(new)
    world.batcher.drop_generation(1)
    assert inbox(old)[0].reason == "worker"
    assert dict(world.batcher.uses) == {2: 1}


# the queue alone


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(TASKS)), min_size=1, max_size=60))
def test_turns_are_fair_and_each_task_is_in_order(places):
    """Of several keys that wait each has every n-th turn, so has a task within its key; oldest first."""
    queue = FairQueue(Bounds(1000, 10_000))
    items = [job(task, str(i), key=key) for i, (key, task) in enumerate(places)]
    for one in items:
        queue.put(one)
    taken = [queue.take(lambda one: True) for _ in items]
    assert queue.take(lambda one: True) is None
    assert set(taken) == set(items)
    for key in "xyz":
        mine = [one for one in taken if one.key == key]
        for task in TASKS:
            own = [int(one.asked[0].content["text"]) for one in mine if one.lane == task]
            assert own == sorted(own)
        _check_turns([one.lane for one in mine])
    _check_turns([one.key for one in taken])


def _check_turns(names):
    """Between two turns of one, each other that still waits has exactly one."""
    left = {name: names.count(name) for name in set(names)}
    since = {name: set() for name in left}
    for name in names:
        for other, seen in since.items():
            if other != name and left[other]:
                assert name not in seen, "somebody had two turns while another waited"
                seen.add(name)
        since[name] = set()
        left[name] -= 1


def test_queue_forgets_who_is_gone():
    queue = FairQueue(Bounds(1000, 10_000))
    items = [job(f"task-{i}") for i in range(50)]
    for one in items:
        queue.put(one)
    random.Random(0).shuffle(items)
    for one in items[:25]:
        queue.remove(one)
    while queue.take(lambda one: True):
        pass
    assert (len(queue), queue.rows, queue.tokens) == (0, 0, 0)
    assert not queue._lanes
    assert not queue._lane_rows
    assert not queue._key_rows


def test_an_item_beyond_a_bound_waits_only_where_nothing_does():
    queue = FairQueue(Bounds(4, 100))
    queue.put(job(rows=9))
    with pytest.raises(Full):
        queue.put(job())
