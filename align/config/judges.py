"""Options of judges that need some: those elsewhere, and those that look for objects and texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from align.config.ranges import Between


@dataclass(frozen=True)
class HttpConfig:
    """The judge of ``reward=http``: a server that is sent pictures and prompts and answers numbers."""

    endpoint: str | None = None
    """Its URL, such as http://localhost:8000/score; with other protocols than ours that of the whole service."""
    reward: str = "default"
    """The server's name of what is asked for."""
    protocol: Literal["align", "unirl", "flow_factory"] = "align"
    """Ours, that of UniRL's service or of Flow-Factory's server."""
    batch: Annotated[int, Between(1, 4096)] = 16
    """Pictures of a request, at most."""
    timeout: Annotated[float, Between(0.1, 86400)] = 120.0
    """Seconds for a whole request."""
    retries: Annotated[int, Between(0, 100)] = 5
    """How often to ask again after a lost connection, a time-out, or a server that is busy."""
    version: str = "1"
    """Raised when the server's scores come to mean something else, and it does not say so itself (``/health``)."""
    key_variable: str | None = None
    """Environment variable that holds the server's key; null sends none."""


@dataclass(frozen=True)
class VlmConfig:
    """The judge of ``reward=vlm``: a vision-language model that is asked about each picture."""

    endpoint: str | None = None
    """Base URL of an OpenAI-compatible chat endpoint, such as http://localhost:8000/v1."""
    model: str | None = None
    """The endpoint's name of the model."""
    question: str = 'Does this figure show "{prompt}"?'
    """What is asked, without how to answer, which is added; {prompt} is the prompt."""
    mode: Literal["yes_no", "number"] = "yes_no"
    """Read the answer as the probability of yes (1 or 0 where the endpoint tells none), or as a last line Score: <number>."""
    normalise: bool = False
    """P(yes) over P(yes or no), instead of P(yes)."""
    range: tuple[float, float] = (1.0, 5.0)
    """Of ``number``: least and most."""
    tokens: Annotated[int, Between(1, 16384)] | None = None
    """Of an answer, at most; null for 1 of ``yes_no`` and 512 of ``number``."""
    timeout: Annotated[float, Between(0.1, 86400)] = 120.0
    """Seconds for an answer."""
    retries: Annotated[int, Between(0, 100)] = 5
    """As ``http.retries``."""
    version: str = "1"
    """Raised when the model behind the name comes to be another one."""
    key_variable: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key, if it wants one; null sends none."""


@dataclass(frozen=True)
class ProcessConfig:
    """The judge of ``reward=process``: another interpreter, with the protocol of ``http`` on a pipe."""

    command: tuple[str, ...] = ()
    """The program and its arguments; it is run, so only the command line may name it, never a config file."""
    reward: str = "default"
    """The program's name of what is asked for."""
    batch: Annotated[int, Between(1, 4096)] = 16
    """Pictures of a request, at most."""
    timeout: Annotated[float, Between(0.1, 86400)] = 600.0
    """Seconds for an answer; the first one's hold the loading of the model."""
    retries: Annotated[int, Between(0, 100)] = 1
    """How often to start the program again when it ends."""
    version: str = "1"
    """Raised when its scores come to mean something else, and it does not say so itself."""


@dataclass(frozen=True)
class OcrConfig:
    """The judges ``ocr``, ``ocr_server`` and ``ocr_got``: how much of a prompt's quoted text a recogniser reads in the picture."""

    target: str | None = None
    """Column of the prompts that holds the text to be read; null for what stands in quotes in the prompt."""


@dataclass(frozen=True)
class GenevalConfig:
    """The judge of ``geneval``: thresholds of arXiv 2310.11513's program, and the words that it knows."""

    threshold: Annotated[float, Between(0, 1)] = 0.3
    """Objects below this score, or at it, are not there."""
    counting_threshold: Annotated[float, Between(0, 1)] = 0.9
    """Likewise where objects are counted."""
    max_objects: Annotated[int, Between(1, 100)] = 16
    """Of a class, at most."""
    position_threshold: Annotated[float, Between(0, 10)] = 0.1
    """By which share of both sizes two objects have to be apart to be left or right of each other, above or below."""
    classes: tuple[str, ...] = ()
    """What the detector's classes are called."""
    colours: tuple[str, ...] = ()
    """What colours there are."""
    colour_templates: tuple[str, ...] = ()
    """What is said of a colour, with {colour} and {class}."""


@dataclass(frozen=True)
class JudgesConfig:
    """Options of judges, whether they guide or measure."""

    name: str = "default"
    http: HttpConfig = field(default_factory=HttpConfig)
    vlm: VlmConfig = field(default_factory=VlmConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    ocr: OcrConfig = field(default_factory=OcrConfig)
    geneval: GenevalConfig = field(default_factory=GenevalConfig)
