# Runs openstack commands as told on standard input, each in a fork, since
# loading the client takes longer than what it does.
import json
import os
import sys

import novaclient.v2.client  # noqa: F401
import openstack.connection  # noqa: F401
import openstackclient.compute.v2.server  # noqa: F401
import openstackclient.network.v2.floating_ip  # noqa: F401
import openstackclient.network.v2.port  # noqa: F401
from openstackclient import shell

shell.OpenStackShell().command_manager  # finds the commands
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.environ.update(job["env"])
        for stream, path in ((1, job["out"]), (2, job["err"])):
            os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), stream)
        os.close(0)
        sys.exit(shell.main(job["args"]))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
