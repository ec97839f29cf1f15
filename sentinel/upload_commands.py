"""`sentinel upload …`: models and texts of one's own, brought to a service. Thin over `sentinel.client`."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sentinel import tables
from sentinel.access import STAYING_S, AsJson, Key, Url, connect
from sentinel.arguments import Most
from sentinel.display import TransferDisplay
from sentinel.outcomes import output
from sentinel.showing import show, show_deleted

if TYPE_CHECKING:  # httpx comes with it, which `--help` can do without
    from sentinel.replies import Upload

group = typer.Typer(help="Bring models and texts to the service.", no_args_is_help=True)

UploadId = Annotated[str, typer.Argument(metavar="UPLOAD", help="Id of the upload, `upl_…`.")]
Name = Annotated[str | None, typer.Option(help="For people.", show_default="that of the file or folder")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the `sentinel` command."""
    app.add_typer(group, name="upload")


@group.command()
def model(
    path: Annotated[Path, typer.Argument(help="A folder that from_pretrained loads, or a .tar or .zip of one.")],
    *,
    name: Name = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a model. One that was cut off goes on where it stopped when it is asked for again."""
    with connect(url, api_key, patience_s=STAYING_S) as client, _display() as display:
        made = client.upload_model(path, name=name or path.resolve().name, progress=display.tell)
    _show(made, f"model: {{source: upload, id: {made.id}}}", as_json=as_json)


@group.command()
def text(
    path: Annotated[Path, typer.Argument(help="A .txt, .jsonl, .json, .csv or .parquet file.")],
    *,
    name: Name = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a text. One that was cut off begins anew when it is asked for again."""
    with connect(url, api_key, patience_s=STAYING_S) as client, _display() as display:
        made = client.upload_text(path, name=name or path.name, progress=display.tell)
    _show(made, f"data: {{source: upload, train: {made.id}}}", as_json=as_json)


@group.command("list")
def list_uploads(*, limit: Most = 50, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List uploads, newest first."""
    with connect(url, api_key) as client:
        uploads = list(islice(client.list_uploads(), limit))
    show(uploads, tables.uploads(uploads), as_json=as_json)


@group.command()
def get(upload_id: UploadId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show one upload with its files."""
    with connect(url, api_key) as client:
        upload = client.get_upload(upload_id)
    show(upload, tables.upload(upload), as_json=as_json)


@group.command()
def delete(upload_id: UploadId, *, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Delete an upload that no job needs any more."""
    with connect(url, api_key) as client:
        client.delete_upload(upload_id)
    show_deleted(upload_id, as_json=as_json)


def _display() -> TransferDisplay:
    return TransferDisplay(Console(stderr=True), "uploading")


def _show(made: "Upload", line: str, *, as_json: bool) -> None:
    if as_json:
        print(made.model_dump_json())
        return
    console = output()
    console.print(made.id, highlight=False)
    console.print(f"In a spec: {line}", markup=False, highlight=False)
