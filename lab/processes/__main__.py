"""What the supervisor's process runs: python -m lab.processes FOLDER LOGS broker.

It is this small because Python compiles it anew at each start. It keeps what it compiles of other modules.
"""

import os

from lab.processes.children import exit_code
from lab.processes.supervisor import main

os._exit(exit_code(main))  # at once: taking all modules apart would take long, and somebody waits for the end
