# Makes a Keystone in the directory that is given, then starts and kills its
# server as told on standard input, and cleans up when that ends. Setting up and
# serving share one interpreter, since loading Keystone takes seconds: each
# server is a fork.
import io
import json
import os
import shutil
import signal
import socketserver
import sqlite3
import sys
import traceback
import wsgiref.simple_server
import wsgiref.util

directory, password = sys.argv[1], sys.argv[2]
os.chdir("/")
config = os.path.join(directory, "keystone.conf")
with open(config, "w") as f:
    f.write("""[DEFAULT]
log_file = {0}/log
[database]
connection = sqlite:///{0}/keystone.db?timeout=60
sqlite_synchronous = false
[fernet_tokens]
key_repository = {0}/fernet
[fernet_receipts]
key_repository = {0}/fernet
[credential]
key_repository = {0}/credential
[identity]
password_hash_rounds = 4
[cache]
enabled = true
[oslo_policy]
policy_file = {0}/policy.yaml
policy_dirs = {0}/policy.d
""".format(directory))

from keystone.cmd import cli  # noqa: E402
from keystone.server import wsgi  # noqa: E402

listener = socketserver.TCPServer(("127.0.0.1", 0), None)
port = listener.server_address[1]
url = "http://127.0.0.1:%d/v3" % port


class Server(socketserver.ForkingMixIn, wsgiref.simple_server.WSGIServer):
    max_children = 32
    request_queue_size = 128


class Handler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


def fork(function, *args):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.close(0)
        function(*args)
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def manage(*args):
    sys.argv = ["keystone-manage", "--config-file", config, *args]
    cli.main(argv=sys.argv)


def run(*args):
    if os.waitpid(fork(manage, *args), 0)[1]:
        raise RuntimeError("keystone-manage %s failed" % args[0])


def serve():
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = config
    sys.argv = ["keystone-wsgi-public"]
    application = wsgi.initialize_public_application()
    warm(application)
    server = Server(("127.0.0.1", port), Handler)
    server.set_app(application)
    server.serve_forever()


def warm(application):
    """Logs in once, so that what Keystone loads for that need not be loaded for each request, which is a fork."""
    domain = {"id": "default"}
    user = {"name": "admin", "password": password, "domain": domain}
    body = json.dumps({"auth": {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": {"name": "admin", "domain": domain}}}})
    token = call(application, "POST", "/v3/auth/tokens", body, {}).get("X-Subject-Token", "")
    own = {"HTTP_X_AUTH_TOKEN": token, "HTTP_X_SUBJECT_TOKEN": token}
    for path in ("/v3/auth/tokens", "/v3/projects", "/v3/users", "/v3/roles", "/v3/services"):
        call(application, "GET", path, "", own)


def call(application, method, path, body, headers):
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_TYPE": "application/json",
               "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body.encode()), **headers}
    wsgiref.util.setup_testing_defaults(environ)
    answer = {}
    for _ in application(environ, lambda status, headers, *_: answer.update(headers)):
        pass
    return answer


def kill(pid):
    if pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main():
    user = str(os.getuid())
    run("db_sync")
    # Keystone reads by one connection while it commits by another, which must not wait for that.
    sqlite3.connect(os.path.join(directory, "keystone.db")).execute("PRAGMA journal_mode = WAL").close()
    run("fernet_setup", "--keystone-user", user, "--keystone-group", user)
    run("bootstrap", "--bootstrap-password", password, "--bootstrap-region-id", "RegionOne",
        "--bootstrap-public-url", url, "--bootstrap-internal-url", url, "--bootstrap-admin-url", url)
    listener.server_close()
    print(url, flush=True)
    child = 0
    for command in map(str.strip, sys.stdin):
        if command == "start":
            child = fork(serve)
        else:
            kill(child)
            child = 0
        print(command, flush=True)
    kill(child)


code = 1
try:
    main()
    code = 0
except BaseException:
    traceback.print_exc()
finally:
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(code)
