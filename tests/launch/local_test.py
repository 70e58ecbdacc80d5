"""The local launcher: numbered lines, a name for the process that failed, an end for the others."""

import signal
import subprocess
import sys

import pytest

SHOW = """
import os
print(os.environ["VFE_PROCESS"], os.environ["VFE_PROCESSES"], os.environ["XLA_FLAGS"])
"""
FAIL = """
import os, sys, time
if os.environ["VFE_PROCESS"] == "1":
  {how}
time.sleep(100)
"""
TOLD = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def launch(request):
  """Starts `launch/local.py` with flags and a program of Python."""

  def call(program, *flags):
    command = [sys.executable, "launch/local.py", *flags, "--", sys.executable, "-c", program]
    return subprocess.Popen(
      command, cwd=request.config.rootpath, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip

  return call


def test_every_process_knows_its_number_and_has_its_devices(launch, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_dump_to=x")
  process = launch(SHOW, "-n", "3", "--devices", "2")
  out, _ = process.communicate(timeout=60)
  forced = "--xla_dump_to=x --xla_force_host_platform_device_count=2"
  assert sorted(out.splitlines()) == [f"[{i}] {i} 3 {forced}" for i in range(3)]
  assert process.returncode == 0


@pytest.mark.parametrize(
  "how,code,told",
  [
    ("sys.exit(7)", 7, "process 1 ended with exit code 7"),
    ("os.kill(os.getpid(), 11)", 139, "process 1 was killed by signal 11 (SIGSEGV)"),
  ],
)
def test_the_one_that_failed_is_named_and_the_others_end(launch, how, code, told):
  process = launch(FAIL.format(how=how), "-n", "3", "--grace", "0.5")
  _, error = process.communicate(timeout=60)  # the others would sleep for 100 s
  assert process.returncode == code
  assert f"launch: {told}\n" in error
  assert error.index(told) < error.index("process 0 was killed by signal 9")


def test_sigterm_is_passed_on_to_all(launch):
  process = launch(TOLD, "-n", "2")
  assert {process.stdout.readline(), process.stdout.readline()} == {"[0] ready\n", "[1] ready\n"}
  process.send_signal(signal.SIGTERM)
  _, error = process.communicate(timeout=60)
  assert process.returncode == 75
  assert all(f"process {number} ended with exit code 75" in error for number in (0, 1))


def test_a_command_is_asked_for(launch, request):
  run = subprocess.run(
    [sys.executable, "launch/local.py", "-n", "2"],
    cwd=request.config.rootpath, capture_output=True, text=True,
  )  # fmt: skip
  assert run.returncode == 2 and "a command behind --" in run.stderr
