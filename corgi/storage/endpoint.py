"""The S3 endpoint, determined in one way for inputs, the root and uploads."""

import os

VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Environment variables that name the endpoint; the first that is set and not empty is used."""


def s3_endpoint() -> str:
    """Return the URL of the S3 server that the environment names; empty for Amazon's own.

    An endpoint without a scheme gets https.
    """
    named = next((value for name in VARIABLES if (value := os.environ.get(name))), "").rstrip("/")
    return named if "://" in named or not named else f"https://{named}"


def is_plain_http(endpoint: str) -> bool:
    """Return whether an endpoint uses plain HTTP, as a self-hosted server such as MinIO may."""
    return endpoint.startswith("http://")
