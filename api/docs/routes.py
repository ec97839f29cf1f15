"""The HTTP side of the documentation: one page, and what it loads from here and from nowhere else."""

from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

router = APIRouter(prefix="/docs", include_in_schema=False)

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DAY = {"Cache-Control": "private, max-age=86400"}


def _swagger() -> Path:
    """Where Swagger UI lies; its package is not imported."""
    package = find_spec("fastapi_offline")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("fastapi_offline, which brings Swagger UI, is not installed.")
    return Path(package.origin).parent / "static"


SWAGGER = _swagger()
FILES = {
    "swagger.js": SWAGGER / "swagger-ui-bundle.js",
    "style.css": SWAGGER / "swagger-ui.css",
    "icon.png": SWAGGER / "favicon.png",
    "start.js": HERE / "start.js",
}


@router.get("")
def page() -> FileResponse:
    """Needs no key: it says nothing that the sources do not."""
    return FileResponse(HERE / "page.html", headers={"Content-Security-Policy": POLICY})


@router.get("/{name}")
def asset(name: str) -> FileResponse:
    """A script, a style or an image of the page."""
    if name not in FILES:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return FileResponse(FILES[name], headers=DAY)
