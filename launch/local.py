"""Starts one run as several processes of this machine, each with CPU devices of its own.

    python launch/local.py -n 2 --devices 2 -- python -m vfe.main --config=configs/lvmae_128.py:demo

Every process gets the same command and finds the others by VFE_COORDINATOR, VFE_PROCESSES and
VFE_PROCESS. Their lines stand behind their numbers. When one ends with an error it is named, the
others have `--grace` seconds to end by themselves, and what is left then is killed. The exit code
is that of the process that failed first (128 + n for signal n). Ctrl-C and SIGTERM are passed on.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

FORCED = re.compile(r"--xla_force_host_platform_device_count=\d+")


def main(arguments: Sequence[str]) -> int:
  """Starts the processes, waits for them, returns the exit code."""
  given = parse(arguments)
  address = f"127.0.0.1:{free_port()}"
  processes = [start(given, number, address) for number in range(given.n)]
  for received in (signal.SIGTERM, signal.SIGINT):
    signal.signal(received, lambda number, _: tell(processes, number))
  readers = [
    threading.Thread(target=pass_on, args=(number, source, target))
    for number, process in enumerate(processes)
    for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
  ]
  for reader in readers:
    reader.start()
  code = watch(processes, given.grace)
  for reader in readers:
    reader.join()
  return code


def parse(arguments: Sequence[str]) -> argparse.Namespace:
  """The flags, and the command behind `--`."""
  parser = argparse.ArgumentParser(usage="local.py [-n N] [--devices D] [--grace S] -- COMMAND ...")
  parser.add_argument("-n", type=int, default=2, help="processes")
  parser.add_argument("--devices", type=int, default=1, help="CPU devices of each process")
  parser.add_argument("--grace", type=float, default=20, help="seconds that the others are left")
  parser.add_argument("command", nargs=argparse.REMAINDER)
  given = parser.parse_args(arguments)
  given.command = given.command[given.command[:1] == ["--"] :]
  if not given.command or given.n < 1 or given.devices < 1:
    parser.error("give at least one process, one device, and a command behind --")
  return given


def free_port() -> int:
  """A port of this machine that nobody listens on."""
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    return taken.getsockname()[1]


def start(given: argparse.Namespace, number: int, address: str) -> subprocess.Popen:
  """One process, in a session of its own: the terminal's Ctrl-C reaches it through us only."""
  flags = FORCED.sub("", os.environ.get("XLA_FLAGS", ""))
  env = os.environ | {
    "VFE_COORDINATOR": address,
    "VFE_PROCESSES": str(given.n),
    "VFE_PROCESS": str(number),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={given.devices}".strip(),
    "PYTHONUNBUFFERED": "1",
  }
  process = subprocess.Popen(
    given.command, env=env, text=True, errors="replace", start_new_session=True,
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
  )  # fmt: skip
  say(f"process {number} of {given.n} is pid {process.pid}")
  return process


def pass_on(number: int, source: IO[str], target: IO[str]) -> None:
  """Prints the lines of one process behind its number."""
  for line in source:
    target.write(f"[{number}] {line.rstrip()}\n")
    target.flush()


def watch(processes: Sequence[subprocess.Popen], grace: float) -> int:
  """Waits for all, kills those that are left some time after one has failed.

  Returns:
    the exit code of the one that failed first, 0 where none has.
  """
  running = dict(enumerate(processes))
  failed, deadline = 0, float("inf")
  while running:
    for number, process in list(running.items()):
      code = process.poll()
      if code is None:
        continue
      del running[number]
      if code:
        say(f"process {number} {words(code)}")
      if code and not failed:
        failed, deadline = (code if code > 0 else 128 - code), time.monotonic() + grace
        if running:
          say(f"the others have {grace:g} s to end before they are killed")
    if time.monotonic() > deadline:
      for process in running.values():
        os.killpg(process.pid, signal.SIGKILL)
    time.sleep(0.05)
  return failed


def words(code: int) -> str:
  """How a process ended, by its return code."""
  if code > 0:
    return f"ended with exit code {code}"
  return f"was killed by signal {-code} ({signal.Signals(-code).name})"


def tell(processes: Sequence[subprocess.Popen], number: int) -> None:
  """Passes a signal on to all that still run."""
  for process in processes:
    if process.poll() is None:
      process.send_signal(number)


def say(text: str) -> None:
  """A line of the launcher's own."""
  print(f"launch: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
