"""Looks at input files through Hadoop's file systems, so that paths, globs and URIs (s3://, hdfs://) work alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from fm_spark.errors import InputError

_GLOB_CHARACTERS = "\\{}[]*?"
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Entry:
    """A file or a folder.

    Attributes:
        uri: absolute, with scheme, as Hadoop writes it; not a glob.
        name: last part of the path.
        size: bytes; 0 for a folder.
    """

    uri: str
    name: str
    is_folder: bool
    size: int

    @property
    def pattern(self) -> str:
        """The URI with glob characters escaped: what a Spark reader, which expands globs, has to be given."""
        return "".join(f"\\{c}" if c in _GLOB_CHARACTERS else c for c in self.uri)

    @property
    def shown(self) -> str:
        """The path for messages: without ``file:``."""
        return "/" + self.uri.removeprefix("file:").lstrip("/") if self.uri.startswith("file:") else self.uri


def find(spark: SparkSession, path: str) -> list[Entry]:
    """The file or folder at a path, or everything a glob matches, ordered by URI; empty when there is nothing.

    Raises:
        InputError: the file system is unknown or refuses access.
    """
    try:
        hadoop_path, system = _open(spark, path)
        try:
            # a name that holds glob characters and exists is meant literally
            if system.exists(hadoop_path):
                return [_entry(system.getFileStatus(hadoop_path))]
        except Py4JJavaError as error:
            if "FileNotFound" not in _java_class(error):
                raise
        matches = system.globStatus(hadoop_path)
        return sorted((_entry(status) for status in matches or []), key=lambda entry: entry.uri)
    except Py4JJavaError as error:
        raise _unreadable(path, error) from error


def children(spark: SparkSession, folder: Entry) -> list[Entry]:
    """What a folder holds, ordered by name.

    Raises:
        InputError: access is refused.
    """
    try:
        hadoop_path, system = _open(spark, folder.uri)
        return sorted((_entry(status) for status in system.listStatus(hadoop_path)), key=lambda entry: entry.name)
    except Py4JJavaError as error:
        raise _unreadable(folder.shown, error) from error


def head(spark: SparkSession, file: Entry, n_bytes: int = _HEAD_BYTES) -> bytes:
    """The first bytes of a file, decompressed when its name says so (.gz, .bz2, ...).

    Raises:
        InputError: the file cannot be read, or is not what its name says.
    """
    try:
        hadoop_path, system = _open(spark, file.uri)
        stream = system.open(hadoop_path)
        try:
            jvm: Any = spark._jvm
            factory = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(_hadoop_conf(spark))
            codec = factory.getCodec(hadoop_path)
            source = stream if codec is None else codec.createInputStream(stream)
            return bytes(source.readNBytes(n_bytes))
        finally:
            stream.close()
    except Py4JJavaError as error:
        raise _unreadable(file.shown, error) from error


def first_line(spark: SparkSession, file: Entry) -> str | None:
    """The first line of a text file in UTF-8, without byte order mark and line end; None when the file is empty.

    Raises:
        InputError: the file is UTF-16, or holds bytes that are no text.
    """
    data = head(spark, file)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{file.shown} is UTF-16 text; save it as UTF-8")
    if b"\x00" in data[:1024]:
        raise InputError(f"{file.shown} is not a text file (it holds zero bytes); give CSV text or set input.format")
    if not data:
        return None
    # the line ends that Spark's text source knows; str.splitlines has more
    return re.split(r"\r\n|\n|\r", data.decode("utf-8-sig", errors="replace"), maxsplit=1)[0]


def _open(spark: SparkSession, path: str) -> tuple[Any, Any]:
    jvm: Any = spark._jvm
    hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
    return hadoop_path, hadoop_path.getFileSystem(_hadoop_conf(spark))


def _hadoop_conf(spark: SparkSession) -> Any:
    return spark.sparkContext._jsc.hadoopConfiguration()


def _entry(status: Any) -> Entry:
    path = status.getPath()
    return Entry(path.toString(), path.getName(), bool(status.isDirectory()), int(status.getLen()))


def _java_class(error: Py4JJavaError) -> str:
    return str(error.java_exception.getClass().getName())


def _unreadable(path: str, error: Py4JJavaError) -> InputError:
    reason = str(error.java_exception.getMessage() or "").splitlines()
    return InputError(
        f"cannot read {path} ({_java_class(error).rsplit('.', 1)[-1]}: {reason[0] if reason else 'no message'}); "
        "check the path, its file system and your access to it"
    )
