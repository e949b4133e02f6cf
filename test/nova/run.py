# run.py MODULE…: loads what Debian's packages start, once, and runs it as told
# on standard input, each time in a fork: to its end, or until it is told to end
# it. All ends with standard input.
import importlib
import json
import os
import signal
import sys
import traceback

fork, waitpid = os.fork, os.waitpid  # before eventlet puts its own in their place
modules = {name: importlib.import_module(name) for name in sys.argv[1:]}
if "nova.cmd.compute" in modules:
    import nova.virt
    import nova.virt.fake  # noqa: F401
    nova.virt.__path__.append(os.path.join(os.path.dirname(__file__), "virt"))


def serve(application, port):
    from wsgiref.simple_server import make_server
    make_server("127.0.0.1", int(port), application()).serve_forever()


def run(job):
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(job["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [job["name"], *job["args"]]
    module = modules[job["module"]]
    if hasattr(module, "main"):
        return module.main()
    sys.argv = sys.argv[:1]
    return serve(module.init_application, *job["args"])


def start(job):
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        code = run(job) or 0
    except SystemExit as e:
        code = e.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def kill(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


services = {}
for line in sys.stdin:
    job = json.loads(line)
    code = 0
    if job["do"] == "end":
        pid = services.pop(job["name"])
        kill(pid)
        waitpid(pid, 0)
    elif job["do"] == "start":
        services[job["name"]] = start(job)
    else:
        code = os.waitstatus_to_exitcode(waitpid(start(job), 0)[1])
    print(code, flush=True)
for pid in services.values():
    kill(pid)
