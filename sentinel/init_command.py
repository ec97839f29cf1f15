"""`sentinel init`: three questions, and a commented spec that is checked at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
import yaml

from sentinel.access import AsJson, Key, Url, connect
from sentinel.errors import Fault, SentinelError
from sentinel.outcomes import ExitCode, output
from sentinel.reading_commands import show_verdict
from sentinel.spec import Spec, parse_spec
from sentinel.spec_draft import Draft, Purpose, likely_purpose, parse_purpose, parse_target

if TYPE_CHECKING:  # httpx comes with it, which `--help` can do without
    from sentinel.replies import Verdict

T = TypeVar("T")

MODEL, TARGET = "builtin/llama", "30%"
HOW_MUCH = "How much smaller: 30%, or what may be left, like 60M parameters or 12ms"
# A service that is not there must not keep anybody waiting who only wants a file.
PATIENCE_S = 1.0


class FileExists(SentinelError):
    """A spec would be overwritten."""

    code = "file_exists"
    fault = Fault.USER
    next_step = "Name another file, or overwrite it with --force."


class NobodyAnswers(SentinelError):
    """A question has met the end of the input."""

    code = "nobody_answers"
    fault = Fault.USER
    next_step = "Answer with --model, --target and --purpose, or take the defaults for the rest with --yes."


def register(app: typer.Typer) -> None:
    """Add the command of this module to the `sentinel` command."""
    app.command()(init)


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("spec.yaml"),
    *,
    model: Annotated[str | None, typer.Option(help="A hub id, a folder (./model), or builtin/llama.")] = None,
    target: Annotated[
        str | None, typer.Option(help="How much smaller: 30%, 60M (parameters left), 12ms, kv_bytes=4096, flops=2e9.")
    ] = None,
    purpose: Annotated[
        Purpose | None, typer.Option(help="What matters most.", show_default="what the target says")
    ] = None,
    heal: Annotated[bool, typer.Option(help="Train after each cut.")] = True,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: take what is given, defaults for the rest.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write a first spec: which model, how much smaller, and what matters most."""
    if file.exists() and not force:
        raise FileExists(f"{file} exists already.")
    question = _Questions(asks=not yes)
    draft = Draft(
        model=question.answer("Which model: a hub id, a folder like ./model, or builtin/llama", model, MODEL, str),
        target=(wanted := question.answer(HOW_MUCH, target, TARGET, parse_target)),
        purpose=question.answer(
            "What matters most: size, speed, or cache", purpose, likely_purpose(wanted), parse_purpose
        ),
        heal=heal,
    )
    text = draft.text(file.name)
    spec = parse_spec(yaml.safe_load(text))
    file.write_text(text, encoding="utf-8")
    verdict, doubt = _verdict(spec, url, api_key)
    if as_json:
        print(json.dumps({"file": str(file), "verdict": verdict and verdict.model_dump(mode="json")}))
    else:
        _show(file, verdict, doubt)
    if verdict is not None and not verdict.valid:
        raise typer.Exit(ExitCode.WRONG_INPUT)


def _show(file: Path, verdict: "Verdict | None", doubt: str) -> None:
    console = output()
    console.print(f"Wrote {file}.", markup=False, highlight=False)
    if verdict is None:
        console.print(f"The spec is valid; no service has seen it: {doubt}", markup=False, highlight=False)
    else:
        show_verdict(verdict)


class _Questions:
    """Asks on the terminal what was not given, again where an answer is not understood."""

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks

    def answer(self, question: str, given: str | None, default: str, read: Callable[[str], T]) -> T:
        """What was given, said, or else the default.

        Raises:
            NobodyAnswers: There is nobody to ask.
        """
        if given is not None or not self._asks:
            return read(given or default)

        def read_or_ask_again(text: str) -> T:
            try:
                return read(text)
            except SentinelError as error:
                raise typer.BadParameter(f"{error.message} {error.instance_next_step}") from error

        try:
            answer: T = typer.prompt(question, default=default, value_proc=read_or_ask_again)
        except typer.Abort as stopped:  # typer's word for Ctrl-C at a question, and for the end of what is typed
            if isinstance(stopped.__context__, EOFError):
                typer.echo()  # nobody ended the line of the question
                raise NobodyAnswers(f"Nobody answered: {question}?") from stopped
            raise KeyboardInterrupt from stopped
        return answer


def _verdict(spec: Spec, url: str | None, api_key: str | None) -> "tuple[Verdict | None, str]":
    """What the service says of a spec, or why none does."""
    try:
        with connect(url, api_key, patience_s=PATIENCE_S) as client:
            return client.validate(spec), ""
    except SentinelError as error:
        return None, error.message
