"""The whole story once, on this host: start the service, prune a model over HTTP, load what comes out.

`make demo` runs it. Without a terminal it stops everything and exits; with one the service stays up until Ctrl-C.
"""

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from api.settings import Settings
from sentinel.client import SentinelClient
from sentinel.display import ProgressDisplay, result_tables
from sentinel.errors import SentinelError
from sentinel.follow import follow
from sentinel.replies import Job
from worker.embedded import EmbeddedService, exit_on_signals

SPEC = {
    "name": "demo",
    "model": "builtin/llama",
    "prune": {
        "target": {"sparsity": 0.5},
        "cycles": 2,
        "schedule": "linear",
        "calibration_sequences": 32,
        "allocation": "uniform",
        "search": None,
    },
    "heal": {"steps": 40, "batch_tokens": 1024, "learning_rate": 5e-4},
    "evaluate": {"tokens": 16_384},
}
OUTPUTS = Path("outputs") / "demo"
# Runs in a fresh process that knows nothing of Sentinel.
RELOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt, remote_code = sys.argv[1], sys.argv[2], sys.argv[3] == "remote_code"
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=remote_code)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code)
tokens = tokenizer(prompt, return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=40, do_sample=False)[0], skip_special_tokens=True))
"""


def main() -> None:
    """Run the demo; exit code 1 if the job fails."""
    exit_on_signals()
    console = Console()
    try:
        with EmbeddedService(Settings(port=0)) as service:
            console.print(f"Sentinel listens on {service.base_url}")
            console.print(f"Key: {service.key_file}, logs: {service.log_folder}", soft_wrap=True)
            _show_a_job(service, console)
            if console.is_terminal:
                console.print("The service stays up; Ctrl-C stops it.")
                service.wait()
    except SentinelError as error:
        sys.exit(f"{error.message}\n{error.instance_next_step}")
    except KeyboardInterrupt:
        sys.exit(130)


def _show_a_job(service: EmbeddedService, console: Console) -> None:
    with SentinelClient(service.base_url, service.api_key) as client:
        job = client.submit(SPEC)
        console.print(f"Submitted {job.id}")
        with ProgressDisplay(console) as display:
            job = follow(client, job.id, display)
        if job.result is None:
            sys.exit(_why(job))
        console.print(result_tables(job.result))
        folder = client.download_checkpoint(job.id, OUTPUTS / job.id)
    console.print(f"Checkpoint ({job.result.export_form}): {folder}", soft_wrap=True)
    console.print("Reloaded with plain transformers in a fresh process, it goes on:")
    console.print(_generate(folder, job.result.export_form), style="italic", markup=False)


def _why(job: Job) -> str:
    if job.error is None:
        return f"The job ended {job.state}."
    return f"The job failed ({job.error.code}): {job.error.message}\n{job.error.next_step}\n{job.error.log_tail}"


def _generate(folder: Path, export_form: str) -> str:
    command = [sys.executable, "-c", RELOAD, str(folder), "Once upon a time", export_form]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=offline)
    if done.returncode:
        sys.exit(f"The checkpoint does not load:\n{done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
