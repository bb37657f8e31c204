"""Folders of any file system that Hadoop knows (file, hdfs, s3, ...): what the table store must ask about a path."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from fm_spark.errors import TableError
from fm_spark.tables.storage import storage_error

_LOCAL = re.compile(r"^file:/*(?=/)")


class File(NamedTuple):
    """A file: its URI, its size in bytes, when it was last changed, in milliseconds since 1970 UTC."""

    uri: str
    size: int
    modified: int


class Folder:
    """One folder, named by a path or a URI; relative paths start at the working directory of the session."""

    def __init__(self, spark: SparkSession, location: str, key: str = "tables.root") -> None:
        """``key``: the configuration key that names the folder, for messages."""
        self._spark = spark
        self._location = location
        self._key = key

    def uri(self) -> str:
        """The location with its scheme, absolute, as Spark and Delta want it.

        Raises:
            TableError: no file system serves the scheme.
        """
        return str(self._call(lambda system, path: system.makeQualified(path).toString()))

    def shown(self) -> str:
        """The location for people and for readers without a JVM: a plain absolute path when it is a local one."""
        return _LOCAL.sub("", self.uri())

    def local(self) -> Path | None:
        """The folder as a local path; None for a folder of another file system."""
        uri = self.uri()
        return Path(_LOCAL.sub("", uri)) if uri.startswith("file:") else None

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        return bool(self._call(lambda system, path: system.exists(path)))

    def is_empty(self) -> bool:
        """Whether nothing is there, or a folder that holds nothing."""
        return not self.exists() or bool(
            self._call(
                lambda system, path: system.getFileStatus(path).isDirectory() and not len(system.listStatus(path))
            )
        )

    def is_folder(self) -> bool:
        """Whether a folder is there."""
        return self.exists() and bool(self._call(lambda system, path: system.getFileStatus(path).isDirectory()))

    def child(self, name: str) -> Folder:
        """What lies in the folder under that name."""
        return Folder(self._spark, f"{self.uri().rstrip('/')}/{name}", self._key)

    def replace(self, target: Folder) -> None:
        """Moves this file to the place of another one, in one step where the file system has such a step."""
        context: Any = self._spark.sparkContext
        jvm = context._jvm
        options = jvm.org.apache.hadoop.fs.Options
        overwrite = context._gateway.new_array(options.Rename, 1)
        overwrite[0] = options.Rename.OVERWRITE
        source, place = (jvm.org.apache.hadoop.fs.Path(one.uri()) for one in (self, target))
        files = jvm.org.apache.hadoop.fs.FileContext.getFileContext(source.toUri(), context._jsc.hadoopConfiguration())
        files.rename(source, place, overwrite)
        # Hadoop's checksum of a local file would make it unreadable once somebody edits it
        parent, name = place.getParent(), place.getName()
        Folder(self._spark, f"{parent.toString()}/.{name}.crc", self._key).remove()

    def names(self) -> list[str]:
        """Names of the files and folders in the folder."""
        return [str(status.getPath().getName()) for status in self._call(lambda system, path: system.listStatus(path))]

    def read_text(self, name: str) -> str | None:
        """The text of a small UTF-8 file in the folder; None when there is none of that name."""
        file = Folder(self._spark, f"{self.uri().rstrip('/')}/{name}")
        if not file.exists():
            return None
        context: Any = self._spark.sparkContext
        stream = file._call(lambda system, path: system.open(path))
        try:
            return str(context._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def files(self) -> list[File]:
        """Every file in the folder and in the folders below; checksums that the file system keeps are no files."""
        found, listed = [], self._call(lambda system, path: system.listFiles(path, True))
        while listed.hasNext():
            status = listed.next()
            found.append(
                File(str(status.getPath().toString()), int(status.getLen()), int(status.getModificationTime()))
            )
        return found

    def remove(self) -> None:
        """Deletes the folder with all that is in it; nothing happens when there is none."""
        self._call(lambda system, path: system.delete(path, True))

    def check_writable(self) -> None:
        """Makes the folder when it is missing, then writes and removes an empty file in it.

        Raises:
            TableError: the location is a file, cannot be made or cannot be written.
        """
        if self.exists() and not self._call(lambda system, path: system.getFileStatus(path).isDirectory()):
            raise TableError(f"{self._key} = {self.shown()} is a file; set {self._key} to a folder")
        if not self._call(lambda system, path: system.mkdirs(path)):
            raise self._not_writable("it cannot be created")
        # an own file, because permission bits say nothing on object stores and on read-only mounts
        probe = f".fm_spark-probe-{uuid4().hex}"
        child = Folder(self._spark, f"{self.uri().rstrip('/')}/{probe}", self._key)
        child._call(lambda system, path: system.create(path, True).close())
        child._call(lambda system, path: system.delete(path, False))

    def _call(self, action: Any) -> Any:
        """Runs ``action(file_system, path)`` in the JVM."""
        context = self._spark.sparkContext
        jvm: Any = context._jvm
        try:
            path = jvm.org.apache.hadoop.fs.Path(self._location)
            return action(path.getFileSystem(context._jsc.hadoopConfiguration()), path)
        except Py4JJavaError as error:
            reason = str(error.java_exception.getMessage()).splitlines()[0]
            raise storage_error(self._location, reason) or self._not_writable(reason) from error

    def _not_writable(self, reason: str) -> TableError:
        who = os.environ.get("USER") or f"uid {os.getuid()}"
        return TableError(
            f"cannot use {self._location} for tables ({reason}); set {self._key} to a folder that {who} can write"
        )
