"""The launchers for clusters: they parse, and start what they are given."""

import pathlib
import subprocess

import pytest
import yaml

from vfe.train.stop import EXIT_STOPPED

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"


@pytest.mark.parametrize("name", ["slurm.sh", "tpu_vm.sh"])
def test_a_script_parses_and_says_how_it_is_called(name):
  subprocess.run(["bash", "-n", LAUNCH / name], check=True)
  run = subprocess.run(["bash", LAUNCH / name], capture_output=True, text=True)
  assert run.returncode == 2 and run.stderr.startswith("usage: ")


def recorded(folder, name, code=0):
  """A program of that name that writes down its arguments."""
  file = folder / name
  file.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/{name}.txt\nexit {code}\n')
  file.chmod(0o755)
  return lambda: (folder / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("code", [0, 1, EXIT_STOPPED])
def test_slurm_starts_the_command_and_queues_again_what_was_stopped(tmp_path, code):
  srun, scontrol = recorded(tmp_path, "srun", code), recorded(tmp_path, "scontrol")
  env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "12", "SLURM_CPUS_PER_TASK": "3"}
  command = ["python", "-m", "vfe.main", "--workdir=a b"]
  run = subprocess.run(["bash", LAUNCH / "slurm.sh", *command], env=env, capture_output=True)
  assert run.returncode == code and srun()[-4:] == command
  assert (tmp_path / "scontrol.txt").exists() == (code == EXIT_STOPPED)
  assert code != EXIT_STOPPED or scontrol() == ["requeue", "12"]


def test_every_worker_of_a_slice_gets_the_command_as_it_was_written(tmp_path):
  gcloud = recorded(tmp_path, "gcloud")
  env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
  given = ["slice", "zone", "my folder", "python3", "-m", "vfe.main", "--workdir=a b"]
  subprocess.run(["bash", LAUNCH / "tpu_vm.sh", *given], env=env, check=True)
  told = gcloud()
  assert "--worker=all" in told and "--zone=zone" in told
  assert told[-1].startswith("--command=cd my\\ folder && VFE_CLUSTER=gcetpu ")
  assert told[-1].endswith(" exec python3 -m vfe.main --workdir=a\\ b")


def test_the_jobset_runs_a_pod_a_host_and_starts_again_what_was_stopped():
  text = (LAUNCH / "gke_jobset.yaml").read_text()
  for variant in (text, text.replace("# - ", "- ").replace("#   ", "  ")):
    spec = yaml.safe_load(variant[variant.index("apiVersion") :])["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"
    stopped = job["podFailurePolicy"]["rules"][0]
    assert stopped["onExitCodes"]["values"] == [EXIT_STOPPED]
    assert stopped["action"] == "FailJob"
    assert spec["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    container = job["template"]["spec"]["containers"][0]
    assert container["command"][:3] == ["python", "-m", "vfe.main"]
  names = [variable["name"] for variable in container["env"]]
  assert names[1:] == ["VFE_COORDINATOR", "VFE_PROCESSES", "VFE_PROCESS"]
