"""The content of a message as a worker needs it: one text, or texts and images in their order."""

from __future__ import annotations

import re

from schemas.bodies import ImageUrl, Part
from schemas.errors import InvalidRequest
from schemas.requests import ImageContent, TextContent

_DATA_URL = re.compile(r"data:image/(?:png|jpeg|jpg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")
_MAX_IMAGES = 64


def message_content(given: str | list[Part], param: str) -> str | list[TextContent | ImageContent]:
    """Text alone becomes one string. Raises InvalidRequest naming the part."""
    if isinstance(given, str):
        return given
    parts = [_part(part, f"{param}[{i}]") for i, part in enumerate(given)]
    images = sum(isinstance(part, ImageContent) for part in parts)
    if images > _MAX_IMAGES:
        raise InvalidRequest(f"At most {_MAX_IMAGES} images in a message.", param=param)
    if not images:
        return "".join(part.text for part in parts if isinstance(part, TextContent))
    return parts


def text_content(given: str | list[Part], param: str) -> str:
    """Where only text may stand. Raises InvalidRequest."""
    content = message_content(given, param)
    if not isinstance(content, str):
        raise InvalidRequest("Images can not stand here, only text.", param=param)
    return content


def _part(part: Part, param: str) -> TextContent | ImageContent:
    if part.type in ("image_url", "input_image"):
        return _image(part, f"{param}.image_url")
    text = part.refusal if part.type == "refusal" else part.text
    if text is None:
        raise InvalidRequest(f"{param}: the part has no text.", param=param)
    return TextContent(text)


def _image(part: Part, param: str) -> ImageContent:
    """Only what comes with the request, or was put there by `responses.images`."""
    image = part.image_url
    url, detail = (image.url, image.detail) if isinstance(image, ImageUrl) else (image, part.detail)
    if url is None:
        raise InvalidRequest(f"{param}: missing; images come with the request, not by the id of a file.", param=param)
    if not _DATA_URL.fullmatch(url):
        raise InvalidRequest(
            f"{param}: send the image itself, as data:image/png;base64,… (or jpeg, webp, gif); "
            "links are not fetched by this server.",
            param=param,
        )
    return ImageContent(url, detail)
