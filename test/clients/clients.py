"""Runs command lines of OpenStack's clients, as they are installed: each one in a fork of this
process, which has loaded them once. A request is a line of JSON on standard input:
{"environment": {...}, "line": "openstack network list"}; so is the answer on standard output."""

import gc
import importlib
import json
import os
import pkgutil
import shlex
import sys
import tempfile
import traceback

import cliff.command
import keystoneauth1.loading
import neutronclient.shell
import openstack.connection
import openstackclient.network.v2
import openstackclient.shell
from osc_lib.command.commandmanager import CommandManager

PROGRAMS = {"openstack": openstackclient.shell.main, "neutron": neutronclient.shell.main}


def load():
    """Loads what the programs load only when a command needs it."""
    for module in pkgutil.iter_modules(openstackclient.network.v2.__path__):
        importlib.import_module("openstackclient.network.v2." + module.name)
    for name in ("openstack.network.v2._proxy", "openstack.config", "keystoneauth1.identity.v3",
                 "keystoneauth1.loading._plugins.identity.v3", "neutronclient.v2_0.client",
                 "cliff.formatters.json_format", "cliff.formatters.value", "openstack.compute.v2._proxy"):
        importlib.import_module(name)
    manager = CommandManager("openstack.cli")
    for group in ("openstack.common", "openstack.identity.v3", "openstack.network.v2", "openstack.neutronclient.v2",
                  "openstack.compute.v2", "openstack.image.v2", "openstack.object_store.v1", "openstack.volume.v3"):
        manager.add_command_group(group)
    keystoneauth1.loading.get_available_plugin_names()
    cliff.command._get_distributions_by_modules()  # reads what is installed, for the end of --help


def call(words):
    """What the program does: its exit code."""
    sys.argv = words
    try:
        return PROGRAMS[words[0]](words[1:]) or 0
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)


def child(request, out, err):
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        os.environ.clear()
        os.environ.update(request["environment"])
        code = call(shlex.split(request["line"]))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def text(file):
    file.seek(0)
    return file.read().decode()


def run(request):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            child(request, out, err)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return {"code": code, "out": text(out), "err": text(err)}


load()
gc.freeze()
for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
