"""`resd COMMAND …`, the same as `python -m` of a module: torchrun starts `resd.train` by that name alone."""

import difflib
import os
import runpy
import sys

import resd

COMMANDS = {
    "train": ("resd.train", "train a model: task=… model=… KEY=VALUE"),
    "evaluate": ("resd.evaluate", "judge a checkpoint: checkpoint=RUN/checkpoints/step_N task=…"),
    "report": ("resd.report", "one page about runs: RUN [RUN …] --out report.html"),
    "play": ("resd.envs.play", "be the model: task=…"),
    "plan": ("resd.plan", "memory and time of an update: --model … --processes …"),
    "push": ("resd.push", "a checkpoint with a model card, for the hub: RUN [--to OWNER/NAME]"),
    "doctor": ("resd.doctor", "what this machine has, and what is missing for which feature"),
}


def main() -> int:
    """Exit status: that of the command, 0 after help, 2 after one sentence about a command that is not there."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name == "--version":
        print(resd.__version__)
        return 0
    if name in ("-h", "--help"):
        print("usage: resd COMMAND …\n", *(f"  {key:<9} {what}" for key, (_, what) in COMMANDS.items()), sep="\n")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name.lstrip("-"), COMMANDS, n=1)
        asked = f"; did you mean {near[0]}?" if near else ""
        print(f"error: resd {name} is not a command: choose one of {', '.join(COMMANDS)}{asked}", file=sys.stderr)
        return 2
    del sys.argv[1]
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # where `python -m` finds a user's task, and a script of pip does not
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
