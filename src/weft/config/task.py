"""A task as its YAML file declares it."""

import re
from pathlib import PurePath
from typing import Literal

from pydantic import Field, model_validator

from weft.config.base import Config, HoldoutDraw, Name, Split

Holdout = Literal["none", "halve_dev", "from_train"]
Format = Literal["plain", "stsb", "multirc", "record", "wsc", "qa", "tweet_qa", "web_nlg", "e2e"]
Answers = Literal["words", "digits"]


def check_holdout(holdout: Holdout, splits: set[Split]) -> None:
    """Refuse a holdout that does not fit the splits there are.

    Raises:
        ValueError: naming them.
    """
    if holdout != "none" and splits != {"train", "dev"}:
        given = ", ".join(sorted(splits)) or "none"
        raise ValueError(
            f"holdout: {holdout} makes the test split from train and dev, and there are: {given}"
        )


class HubConfig(Config):
    """A data set of the Hugging Face hub, or anything else that `datasets.load_dataset` reads."""

    path: str = Field(description="name of the data set, a folder, or a builder such as parquet")
    name: str | None = Field(None, description="configuration of the data set")
    revision: str | None = Field(None, description="commit of the data set; needed for results that last")
    splits: dict[Split, str] = Field(description="split -> its name there")
    holdout: Holdout = Field("none", description="as the task's own holdout, for these splits")

    @model_validator(mode="after")
    def _holdout_fits(self) -> "HubConfig":
        check_holdout(self.holdout, set(self.splits))
        return self


class TaskSpec(Config):
    """A task as its YAML file declares it."""

    name: Name
    benchmark: str = Field("", description="what the data set is part of, for lists")
    licence: str = Field("", description="of the data, as its publishers state it, for lists")
    files: dict[Split, str] = Field(
        default_factory=dict, description="split -> CSV, TSV, JSON, JSONL or Parquet"
    )
    in_data_root: bool = Field(False, description="files lie under --data (WEFT_DATA), not beside this file")
    holdout: Holdout = Field(
        "none",
        description="how the splits without a file are made: dev and test are the halves of the dev file; "
        "or test is the dev file, and dev 1,000 rows of the train file",
    )
    holdout_draw: HoldoutDraw = Field(
        "weft",
        description="which rows are held out, from files and hub: weft's own choice; or attempt: that of "
        "ATTEMPT's public code, which shuffles by torch's seed 42",
    )
    train_rows: int | None = Field(
        None, gt=0, description="most rows that train has; which ones, says the same draw; none: all"
    )
    hub: HubConfig | None = Field(None, description="where the rows come from when there is no data folder")
    format: Format = Field("plain", description="what makes template fields of a row; plain: its columns")
    drop: tuple[str, ...] = Field(
        (), description='values of the target whose rows are left out; "" for rows without one'
    )
    only: dict[str, str] = Field(
        default_factory=dict, description="column -> value: which rows of the files are the task's; none: all"
    )
    source: str = Field(description="text the model reads; {field} stands for a column")
    target: str = Field(description="answer it should write; {field} stands for a column")
    labels: dict[str, str] | None = Field(
        None,
        description="closed answers: value of the target -> word to write; several values may have one word; "
        "none: open answers",
    )
    answers: Answers = Field(
        "words", description="closed answers are written as their words, or as class numbers from 0"
    )
    references: str | None = Field(None, description="column that lists all accepted answers")
    group: str = Field(
        "",
        description="which rows belong together, such as those of one question: a template that they fill "
        "alike; weft's own draws cut no group, and group_em scores whole ones",
    )
    metrics: tuple[str, ...] = Field(
        ("accuracy",),
        description="the first one decides: accuracy, exact_match, f1_macro, f1_binary, group_em, matthews, "
        "pearson, spearman, squad_em, squad_f1; of written texts bleu, rouge_l, meteor_stem, and behind "
        "another one ter, nist, cider",
    )
    positive: str | None = Field(None, description="label word that counts as positive in f1_binary")
    max_target_tokens: int = Field(8, gt=0)
    folder: str = Field("", description="where relative files lie; set by the loader")

    @model_validator(mode="after")
    def _words_can_be_written(self) -> "TaskSpec":
        words = list((self.labels or {}).values())
        if len(words) > 1 and len(set(words)) == 1:
            raise ValueError(f"all labels are written with the same word: {words[0]}")
        if any(not word.strip() for word in words):
            raise ValueError("a label word is empty")
        blank = [word for word in words if word != word.strip()]
        if blank:
            raise ValueError(
                f"a label word has a blank at an end, which no answer that is written has: write "
                f"{blank[0].strip()!r} for {blank[0]!r}; the model's own space before a word is added by weft"
            )
        if self.positive is not None and self.labels is not None and self.positive not in words:
            raise ValueError(f"positive is {self.positive!r}, which is no label word ({', '.join(words)})")
        if not self.metrics:
            raise ValueError("a task needs at least one metric")
        if "group_em" in self.metrics and not self.group:
            raise ValueError("group_em scores groups of rows: say under 'group' which rows belong together")
        return self

    @model_validator(mode="after")
    def _braces_are_single(self) -> "TaskSpec":
        for template in (self.source, self.target, self.group):
            if found := re.search(r"\{\{\s*(\w+)\s*\}\}", template):
                raise ValueError(f"{found[0]!r} would put braces around every text: write {{{found[1]}}}")
        return self

    @model_validator(mode="after")
    def _holdout_fits(self) -> "TaskSpec":
        check_holdout(self.holdout, set(self.files))
        return self

    @property
    def choices(self) -> tuple[str, ...]:
        """The label words, each once, in the order of the labels."""
        return tuple(dict.fromkeys((self.labels or {}).values()))

    def drawn(self, draw: HoldoutDraw) -> "TaskSpec":
        """The same task with another choice of held-out rows.

        ATTEMPT's goes with the splits of the public data set: test rows that a data folder has besides, as
        of SST-2, are then left aside.
        """
        changed: dict[str, object] = {"holdout_draw": draw}
        if draw == "attempt" and self.holdout == "none" and self._has_public_files():
            assert self.hub is not None
            files = {split: file for split, file in self.files.items() if split != "test"}
            changed |= {"holdout": self.hub.holdout, "files": files}
        return self.model_copy(update=changed)

    def _has_public_files(self) -> bool:
        """Whether train and dev file are the parts of which the hub's splits are made."""
        if self.hub is None or self.hub.holdout == "none" or not {"train", "dev"} <= set(self.files):
            return False
        return all(PurePath(self.files[split]).stem == self.hub.splits[split] for split in self.hub.splits)

    def written(self) -> "TaskSpec":
        """The same task with the answers that are really written: its label words, or class numbers."""
        if self.labels is None or self.answers == "words":
            return self
        digits = {word: str(number) for number, word in enumerate(self.choices)}
        positive = None if self.positive is None else digits[self.positive]
        labels = {value: digits[word] for value, word in self.labels.items()}
        return self.model_copy(update={"labels": labels, "positive": positive})
