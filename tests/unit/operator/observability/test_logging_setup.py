"""The operator's log: a line that cannot be written stops nothing."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import logging, structlog, warnings
from hotpool.observability import logging_setup, metrics
logging_setup.configure("info")
structlog.get_logger().info("one")
logging.getLogger("kopf").error("two")
warnings.warn("three")
import sys
sys.stderr.drain(10)
lines = metrics.REGISTRY.get_sample_value("hotpool_log_lines_lost_total")
print(lines)
"""


def test_lines_on_a_full_disk_are_lost_and_counted() -> None:
    with Path("/dev/full").open("wb") as disk:
        command = [sys.executable, "-c", PROGRAM]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=disk, check=True, timeout=60)
    assert float(result.stdout) >= 3
