"""What a client gets when a request fails: the error body that clients of `/v1/images/generations` expect."""

from typing import Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse

Kind = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]


class ErrorDetail(BaseModel):
    """What is wrong with a request, and in which field."""

    message: str
    type: Kind
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that is answered with an error body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """Take the HTTP status and a one-line message; `retry_after_s` becomes the header Retry-After."""
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s = retry_after_s

    def response(self) -> JSONResponse:
        """Return the HTTP answer."""
        detail = ErrorDetail(message=self.message, type=_kind(self.status), param=self.param, code=self.code)
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(ErrorBody(error=detail).model_dump(), self.status, headers)


def _kind(status: int) -> Kind:
    if status in (401, 403):
        return "authentication_error"
    if status in (429, 503):
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
