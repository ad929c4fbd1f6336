"""An error on its way to the client: whoever finds a path's dialect puts into the scope what words errors in it."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

RenderError = Callable[[Request, Exception], Response]


def render_error(request: Request, error: Exception) -> Response:
    """As the dialect of the request words it."""
    render: RenderError = request.state.render_error
    return render(request, error)
