"""The routes of search, and `/knn-service` for clients of clip-retrieval."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Query, UploadFile
from fastapi import Path as PathParameter

from corgi.serving.search import Search, decoded_base64
from corgi.serving.search_bodies import (
    MAX_HITS,
    MAX_SHEETS,
    UID,
    ClusterList,
    KnnHit,
    KnnRequest,
    MetadataRequest,
    RowHistory,
    SearchAnswer,
    SearchRequest,
)
from corgi.serving.uploads import Uploads


def add_search(
    app: FastAPI, search: Search, uploads: Uploads, missing: dict[int | str, dict[str, Any]]
) -> None:
    """Add the routes of search; `missing` is the OpenAPI description of the answer 404."""

    @app.post("/corgi/search", tags=["search"], responses=missing)
    def found(body: SearchRequest) -> SearchAnswer:
        """Find pictures by text, by a picture of the run, or by a cluster of its shift."""
        return search.answer(body)

    @app.post("/corgi/search/picture", tags=["search"])
    async def alike(
        image: Annotated[UploadFile, File(description="JPEG, PNG, WebP or GIF.")],
        number: Annotated[int, Form(ge=1, le=MAX_HITS)] = 24,
    ) -> SearchAnswer:
        """Find pictures similar to an uploaded one."""
        picture = await uploads.picture(await image.read())
        return await asyncio.to_thread(search.like, picture, number)

    @app.get("/corgi/rows/{uid}", tags=["search"], responses=missing)
    def row(uid: Annotated[str, PathParameter(pattern=UID)]) -> RowHistory:
        """Return the history of a picture: its lists, captions, whether and why it was dropped, and how to take it down."""
        return search.history(uid)

    @app.get("/corgi/clusters", tags=["search"])
    def clusters(
        first: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
        number: Annotated[int, Query(ge=1, le=MAX_SHEETS)] = 12,
    ) -> ClusterList:
        """List clusters of the shift, largest first, with the pictures nearest to their means."""
        return ClusterList(clusters=search.clusters(first, number), total=len(search.counts))

    _add_knn(app, search, uploads)


def _add_knn(app: FastAPI, search: Search, uploads: Uploads) -> None:
    @app.post("/knn-service", tags=["search"])
    async def knn(body: KnnRequest) -> list[KnnHit]:
        """Answer a client of clip-retrieval. `image_url` is not supported: the server fetches nothing."""
        picture = None if body.image is None else await uploads.picture(decoded_base64(body.image))
        return await asyncio.to_thread(search.knn, body, picture)

    @app.post("/metadata", tags=["search"])
    def metadata(body: MetadataRequest) -> list[KnnHit]:
        """Return URL and caption of rows by their ids."""
        return search.metadata(body.ids)

    @app.get("/indices-list", tags=["search"])
    async def indices() -> list[str]:
        """Return the name of the only index."""
        return [search.run]
