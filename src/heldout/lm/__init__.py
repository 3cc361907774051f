"""One place that knows models: load, tokenize, losses, generation.

Inner: users go by the names of ``heldout``; what is here may change in any version.
"""

import logging

# peft imports bitsandbytes where that is installed, which warns of kernels that it lacks.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
