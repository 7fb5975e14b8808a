"""Spark in local mode for tests: two cores, no UI, the session's time zone far from UTC.

Import the fixture into a conftest or a test module, and mark the module with `SPARK_WARNINGS`. The session
is made when the first test asks for it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SPARK_WARNINGS", "spark"]

ROOT = Path(__file__).resolve().parent.parent.parent
# Spark asks for pandas wherever Arrow comes in; fastserve gives it none.
SPARK_WARNINGS = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "512m",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.level=error",
    "spark.log.level": "ERROR",
    "spark.sql.session.timeZone": "America/St_Johns",
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100",
    "spark.task.maxFailures": "1",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Give a session whose executors import the code under test."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("no Java, which Spark runs on: install a JRE of version 17 or later")
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    environment = {
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        builder = SparkSession.builder.master("local[2]").appName("fastserve-tests")
        for name, value in SETTINGS.items():
            builder = builder.config(name, value)
        builder = builder.config("spark.local.dir", str(folder)).config(
            "spark.sql.warehouse.dir", str(folder)
        )
        session = builder.getOrCreate()
    # The JVM has inherited what it needs; the tests that come later must not.
    yield session
    session.stop()
