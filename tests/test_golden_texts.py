"""Golden texts: two rows made by hand for each built-in task, with the text that is read and all answers."""

import pytest

from weft.tasks import BUILTIN, find_specs, from_spec

SPECS = find_specs([BUILTIN])
EACH_ANSWER = ("record", "web_nlg", "e2e")  # an example for each of a row's answers


def pairs(*texts):
    """Two rows of two sentences, with their labels."""
    sentences = [("A dog runs.", "A cat sits."), ("It's 3 p.m.", "naïve?")]
    return [
        ({"sentence1": a, "sentence2": b, "label": label}, f"sentence1: {a} sentence2: {b}", answer)
        for (a, b), (label, answer) in zip(sentences, texts, strict=True)
    ]


def logic(*texts):
    """Two rows of premise and hypothesis, with their labels."""
    sentences = [("It rained.", "It was wet."), ("A man, alone", "Nobody is there!")]
    return [
        ({"premise": a, "hypothesis": b, "label": label}, f"premise: {a} hypothesis: {b}", answer)
        for (a, b), (label, answer) in zip(sentences, texts, strict=True)
    ]


def single(*texts, column="text", label="label"):
    """Two rows of one text, with their labels."""
    return [
        ({column: text, label: value}, f"sentence: {text}", answer)
        for text, (value, answer) in zip(("Who runs?", "a  dog (50 %)"), texts, strict=True)
    ]


def asked(first, second):
    """Two rows of a question about a context; the answers as the data set holds them."""
    return [
        (
            {"context": "It was $1,000 (net).", "question": "Cost?", "answers": first},
            "question: Cost ? context: It was $ 1 , 000 ( net ) .",
            ("$ 1 , 000", "1 , 000"),
        ),
        (
            {"context": "Ann's cat_2 ran", "question": "whose cat", "answers": second},
            "question: whose cat context: Ann ' s cat_2 ran",
            ("Ann",),
        ),
    ]


SPANS = asked({"text": ["$1,000", "1,000"]}, {"text": ["Ann", "Ann"], "answer_start": [0, 0]})
LISTS = asked(["$1,000", "1,000"], ["Ann"])
PARAGRAPH = "<b>Sent 1: </b>Ann ran.<br><b>Sent 2: </b>Eve sat.<br />"
SHOWN = "paragraph: Sent 1: Ann ran. Sent 2: Eve sat."
IDX = {"idx": {"paragraph": 3, "question": 7, "answer": 20}}
NEWS = {
    "passage": "Ann met Eve.\n@highlight\nEve won\n@highlight\nAnn lost",
    "entities": ["Ann", "Eve"],
}
RECORD = "entities: Ann, Eve passage: Ann met Eve. Eve won. Ann lost"
TRIPLES = {"modified_triple_sets": {"mtriple_set": [["Ann_Lee | birthPlace | Rome", "Rome | in | Italy"]]}}

GOLDEN = {
    # GLUE
    "sst2": single((1, "positive"), (0, "negative"), column="sentence"),
    "cola": single((0, "wrong"), (1, "correct"), column="sentence"),
    "mrpc": pairs((1, "same"), (0, "different")),
    "stsb": pairs((2.5999999, "2.6"), (4.714, "4.8")),
    "qqp": [
        ({"question1": "Why?", "question2": "So?", "label": 1}, "question1: Why? question2: So?", "same"),
        ({"question1": "a", "question2": "b", "label": 0}, "question1: a question2: b", "different"),
    ],
    "mnli": logic((1, "maybe"), (2, "no")),
    "qnli": [
        ({"question": "Why?", "sentence": "So.", "label": 1}, "question: Why? sentence: So.", "no"),
        ({"question": "Who?", "sentence": "Ann.", "label": 0}, "question: Who? sentence: Ann.", "yes"),
    ],
    "rte": pairs((0, "yes"), (1, "no")),
    # SuperGLUE
    "cb": logic((1, "no"), (2, "maybe")),
    "boolq": [
        ({"question": "is it", "passage": "Yes.", "label": 1}, "question: is it passage: Yes.", "yes"),
        ({"question": "was it", "passage": "No.", "label": 0}, "question: was it passage: No.", "no"),
    ],
    "copa": [
        (
            {"premise": "It rained.", "choice1": "I got wet.", "choice2": "I ate.", "label": 0},
            "premise: It rained. choice1: I got wet. choice2: I ate.",
            "first",
        ),
        (
            {"premise": "I fell.", "choice1": "I ran.", "choice2": "It was icy.", "label": 1},
            "premise: I fell. choice1: I ran. choice2: It was icy.",
            "second",
        ),
    ],
    "multirc": [
        (
            {"paragraph": PARAGRAPH, "question": "Who ran?", "answer": "Ann", "label": 1, **IDX},
            f"question: Who ran? answer: Ann {SHOWN}",
            "yes",
        ),
        (
            {"paragraph": PARAGRAPH, "question": "Who ran?", "answer": "Eve", "label": 0, **IDX},
            f"question: Who ran? answer: Eve {SHOWN}",
            "no",
        ),
    ],
    "wic": [
        (
            {"sentence1": "a bank", "sentence2": "the bank", "word": "bank", "label": 0},
            "sentence1: a bank sentence2: the bank word: bank",
            "no",
        ),
        (
            {"sentence1": "run it", "sentence2": "he ran it", "word": "run", "label": 1},
            "sentence1: run it sentence2: he ran it word: run",
            "yes",
        ),
    ],
    "wsc.fixed": [
        (
            {"text": "Ann called Eve, because (she) was ill.", "span1_index": 0, "span1_text": "Ann",
             "span2_index": 4, "span2_text": "she", "label": 0},
            "text: * Ann * called Eve, because (# she #) was ill.",
            "no",
        ),
        (
            {"text": "When he came, Bob Lee sat.", "span1_index": 3, "span1_text": "Bob Lee",
             "span2_index": 1, "span2_text": "he", "label": 1},
            "text: When # he # came, * Bob Lee * sat.",
            "yes",
        ),
    ],
    "record": [
        (
            {**NEWS, "query": "The winner is @placeholder.", "answers": ["Eve", "Ann", "Eve"]},
            f"query: The winner is @placeholder. {RECORD}",
            ("Eve", "Ann"),
        ),
        ({**NEWS, "query": "@placeholder!", "answers": ["Ann"]}, f"query: @placeholder! {RECORD}", ("Ann",)),
    ],
    # MRQA, and what is asked alike
    "nq": LISTS,
    "hotpotqa": LISTS,
    "searchqa": LISTS,
    "newsqa": LISTS,
    "squad": SPANS,
    "nq_swap": SPANS,
    "qamr": SPANS,
    "tweet_qa": [
        (
            {"Question": "who won?", "Tweet": "We won! #us", "Answer": ["we", "us"]},
            "question: who won? context: We won! #us",
            ("we", "us"),
        ),
        ({"Question": "who", "Tweet": "in Rome", "Answer": "he"}, "question: who context: in Rome", ("he",)),
    ],
    # others
    "winogrande": [
        (
            {"sentence": "Ann met Eve as _ called.", "option1": "Ann", "option2": "Eve", "answer": "2"},
            "sentence: Ann met Eve as _ called. option0: Ann option1: Eve",
            "second",
        ),
        (
            {"sentence": "The _ broke.", "option1": "cup", "option2": "rug", "answer": "1"},
            "sentence: The _ broke. option0: cup option1: rug",
            "first",
        ),
    ],
    "yelp_polarity": single((1, "positive"), (0, "negative")),
    "scitail": logic(("entails", "yes"), ("neutral", "no")),
    "paws": pairs((0, "different"), (1, "same")),
    # NLG
    "e2e": [
        (
            {"meaning_representation": "name[Alto], food[fish]", "human_reference": "Alto has fish."},
            "meaning: name[Alto], food[fish]",
            ("Alto has fish.",),
        ),
        (
            {"meaning_representation": "name[Bo]", "references": ["It is Bo.", "Bo."]},
            "meaning: name[Bo]",
            ("It is Bo.", "Bo."),
        ),
    ],
    "web_nlg": [
        (
            {**TRIPLES, "lex": {"text": ["Ann is Italian.", "Ann.", "She is from Rome."],
                                "comment": ["good", "bad", "good"]}},
            "triples: Ann Lee | birthPlace | Rome && Rome | in | Italy",
            ("Ann is Italian.", "She is from Rome."),
        ),
        (
            {"modified_triple_sets": {"mtriple_set": [["Bo | age | 3"]]},
             "lex": {"text": ["Bo is 3."], "comment": ["good"]}},
            "triples: Bo | age | 3",
            ("Bo is 3.",),
        ),
    ],
    # pairs, opinions, topics
    "snli": logic((2, "no"), (0, "yes")),
    "wiki_qa": [
        ({"question": "why?", "answer": "So.", "label": 1}, "question: why? sentence: So.", "yes"),
        ({"question": "who?", "answer": "Ann.", "label": 0}, "question: who? sentence: Ann.", "no"),
    ],
    "cr": single((0, "negative"), (1, "positive")),
    "mpqa": single((0, "negative"), (1, "positive")),
    "subj": single((0, "objective"), (1, "subjective")),
    "sst5": single((0, "terrible"), (3, "good")),
    "imdb": single((0, "negative"), (1, "positive")),
    "amazon_polarity": [
        ({"title": "Bad", "content": "Ugh.", "label": 0}, "sentence: Bad Ugh.", "negative"),
        ({"title": "So good", "content": "Yes!", "label": 1}, "sentence: So good Yes!", "positive"),
    ],
    "ag_news": single((0, "world"), (3, "technology")),
    "trec": single((3, "human"), (4, "location"), label="coarse_label"),
    "snips": single((0, "playlist"), (2, "weather")),
    "banking77": single((0, "activate my card"), (76, "wrong exchange rate for cash withdrawal")),
    "clinc150": single((0, "accept reservations"), (149, "yes")),
}  # fmt: skip
ROWS = [(name, *row) for name, rows in GOLDEN.items() for row in rows]
each_row = pytest.mark.parametrize(
    ("name", "row", "source", "answers"), ROWS, ids=[f"{one[0]}-{i % 2}" for i, one in enumerate(ROWS)]
)


def test_every_task_has_two_rows():
    """None is left out, and the two rows differ in text and answer."""
    assert GOLDEN.keys() == SPECS.keys()
    for name, ((_, text, answer), (_, other, another)) in GOLDEN.items():
        assert (text != other, answer != another) == (True, True), name


@each_row
def test_row_becomes_its_text_and_answers(name, row, source, answers):
    """The text that is read, and every accepted answer, letter for letter."""
    accepted = (answers,) if isinstance(answers, str) else answers
    examples = from_spec(SPECS[name]).examples(row)
    assert {one.source for one in examples} == {source}
    assert {one.accepted for one in examples} == {accepted}
    assert [one.target for one in examples] == list(accepted if name in EACH_ANSWER else accepted[:1])


@each_row
def test_question_without_its_answer_has_the_same_text(name, row, source, answers):
    """New rows are answered from the same text as in training, although they have no answer yet."""
    columns = {"label", "coarse_label", "answers", "Answer", "answer", "lex", "human_reference", "references"}
    columns -= {"answer"} if name in ("multirc", "wiki_qa") else set()
    bare = {column: value for column, value in row.items() if column not in columns}
    assert from_spec(SPECS[name]).source(bare) == source
