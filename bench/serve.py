"""The loop of a process that takes commands and answers, one JSON object per line.

    {"do": NAME, ...}    NAME: one of the commands, the rest its arguments. Answers with an object;
                         {"error": TEXT} if it failed.

compare.py holds the other end; peer_*.py are the processes.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable


def serve(commands: dict[str, Callable[..., dict]]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = commands[command.pop("do")](**command)
        except Exception as error:  # the other side decides whether it can go on without
            traceback.print_exc()
            first_line = (str(error).strip() or "no message").splitlines()[0]
            answer = {"error": f"{type(error).__name__}: {first_line}"}
        print(json.dumps(answer), file=answers, flush=True)
