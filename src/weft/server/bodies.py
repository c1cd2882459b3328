"""What clients send. Keys of OpenAI's that weft has no use for are taken with their neutral values."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from weft.server.strict_json import Body

TaskName = Annotated[str, Field(min_length=1, max_length=256)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Zero = Annotated[float, Field(ge=0, le=0)] | None
MOST_CHOICES = 16


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Writing(Body):
    """What completions and chats have in common: how answers are written."""

    model: TaskName = Field(description="name of a task")
    max_tokens: int | None = Field(
        None, ge=1, le=2**31, description="most tokens of an answer; else the task's"
    )
    temperature: float | None = Field(None, ge=0, le=2, description="0 or none: the likeliest answer")
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="answers to each prompt")
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = Field(
        None, description="texts before which an answer ends"
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="of draws")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    frequency_penalty: Zero = None
    presence_penalty: Zero = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        """Texts before which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionBody(Writing):
    """Body of /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1)] = Field(description="finished texts; no template")
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: None = None

    @property
    def prompts(self) -> list[str]:
        """The texts."""
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)


class Part(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Body):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    name: None = None

    @property
    def text(self) -> str:
        """All of it."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ResponseFormat(Body):
    """Text and nothing else."""

    type: Literal["text"]


class ChatBody(Writing):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None


Row = dict[str, JsonValue]
Input = str | Row


class ClassifyBody(Body):
    """Body of /v1/classify."""

    model: TaskName | Annotated[list[TaskName], Field(min_length=1)] = Field(
        description="name of a task, several, or * for all tasks of `group`"
    )
    group: Annotated[str, Field(max_length=256)] | None = Field(None, description="whose tasks * stands for")
    inputs: Input | Annotated[list[Input], Field(min_length=1)] = Field(
        description="finished texts, or rows with the fields of the tasks' templates"
    )

    @property
    def rows(self) -> list[str | dict[str, Any]]:
        """The texts and rows."""
        return list(self.inputs) if isinstance(self.inputs, list) else [self.inputs]
