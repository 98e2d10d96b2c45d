"""Files of jobs, in a folder or a bucket: those of their requests, and the pictures they made."""

import asyncio

import fsspec


class PictureStore:
    """Files by name, in the folder of their job."""

    def __init__(self, url: str) -> None:
        """Looks up what serves a path or URL.

        Raises:
            ValueError: a package is missing, or its scheme is unknown.
        """
        scheme = url.partition("://")[0]
        options = {"auto_mkdir": True} if scheme in (url, "file") else {}
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            raise ValueError(
                f"jobs_pictures: {scheme}:// needs a package that is missing; for s3:// install "
                'the extra "s3"'
            ) from error
        except ValueError as error:
            raise ValueError(
                "jobs_pictures: expected a folder, s3:// or another scheme of fsspec, got "
                f"{scheme}://"
            ) from error

    async def write(self, name: str, content: bytes) -> None:
        """Writes a file, such as "JOB/RUN/0"; it is whole when this returns."""
        await asyncio.to_thread(self._files.pipe_file, f"{self._root}/{name}", content)

    async def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            FileNotFoundError: it is not there.
        """
        content: bytes = await asyncio.to_thread(self._files.cat_file, f"{self._root}/{name}")
        return content

    async def remove(self, job_id: str) -> None:
        """Removes all files of a job."""
        path = f"{self._root}/{job_id}"

        def remove() -> None:
            if self._files.exists(path):
                self._files.rm(path, recursive=True)

        await asyncio.to_thread(remove)
