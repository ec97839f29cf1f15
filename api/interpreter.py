"""How the interpreter shares its one lock among the requests of a process, and when it stops them all.

Knows neither requests nor the application; what is set here holds for the whole process.
"""

import gc
import sys

# A thread that wants the lock waits this long before its holder must let go. The event loop gives it up at every read
# and write of a socket, so that each of some twenty in a request would wait so long for whoever parses or queries.
SWITCH_S = 0.0005  # Python's own is ten times as long


def serve_many() -> None:
    """Let no request hold up the others longer than need be. Call it once everything is imported.

    A full collection looks at all objects, with the lock held. Those of the code are some hundred thousand, which takes
    a tenth of a second, and they stay anyway: frozen, they are not looked at again.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
