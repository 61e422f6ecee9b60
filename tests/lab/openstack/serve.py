#!/usr/bin/env python3
"""Run the services: serve.py LAB HOST NAME:PORT...

LAB is the lab's directory: openstack/etc is read, log and run are written.

Imports once what they share, then forks one process per name, which is one
OpenStack project whole: its API and, in threads beside it, every daemon that
the project's package would start (nova: conductor, scheduler, compute).  The
daemons of a project reach each other through memory (standins/lab_mq.py).
Forking from a common parent saves a third of the start and of the memory.

Stands in for the WSGI server and the process manager of an installation.
Where a project is changed to live like this, the function says why.
"""
import gc
import importlib
import logging
import os
import random
import signal
import sys
import threading
import time

# compute hosts: two, so that a scheduler has a choice
COMPUTES = 'compute-1', 'compute-2'

SHARED = '''
sqlalchemy.orm sqlalchemy.dialects.sqlite alembic.migration
oslo_db.api oslo_db.sqlalchemy.enginefacade oslo_db.sqlalchemy.models
oslo_db.sqlalchemy.utils oslo_messaging oslo_messaging.rpc oslo_policy.policy
oslo_cache oslo_concurrency.lockutils oslo_context.context oslo_log.log
oslo_middleware oslo_reports.guru_meditation_report oslo_service.service
oslo_service.periodic_task oslo_service.loopingcall oslo_upgradecheck.upgradecheck
oslo_utils.timeutils oslo_utils.versionutils oslo_versionedobjects.base
oslo_privsep.priv_context osprofiler.profiler keystonemiddleware.auth_token
keystoneauth1.loading keystoneauth1.identity keystoneclient.v3.client
openstack.connection requests webob.dec webob.exc paste.deploy routes.middleware
werkzeug.serving werkzeug.routing jsonschema jinja2 cryptography.fernet
cryptography.x509 cryptography.hazmat.primitives.serialization OpenSSL
dns.resolver dns.message dns.zone dns.query cinderclient.client
cinderclient.v3.client novaclient.client glanceclient.v2.client
neutronclient.v2_0.client castellan.key_manager os_traits os_resource_classes
pecan taskflow.engines tooz.coordination futurist lxml.etree yaml netaddr
stevedore.driver prometheus_client barbicanclient.client
'''.split()


class NoEventlet:
    """Libraries that see eventlet while shared modules load would adapt to
    it; nothing here runs under it (some projects import it all the same)."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split('.')[0] == 'eventlet':
            raise ModuleNotFoundError('No module named eventlet', name=name)


def preload():
    sys.meta_path.insert(0, NoEventlet)
    # before anything else is imported: threads, not eventlet
    from oslo_service import backend
    backend.init_backend(backend.BackendType.THREADING)
    for name in SHARED:
        try:
            importlib.import_module(name)
        except Exception as ex:  # a newer release may have moved it
            print('not preloaded:', name, repr(ex))
    sys.meta_path.remove(NoEventlet)
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()


def sqlite_patch():
    """Make SQLite stand many threads.

    oslo.db begins every SQLite transaction with a plain BEGIN, so one that
    reads and then writes fails at once with "database is locked" if another
    wrote meanwhile.  With the write-ahead log, a writer that says so when it
    begins (BEGIN IMMEDIATE) waits its turn, and readers never wait.
    """
    from oslo_db.sqlalchemy import enginefacade
    from sqlalchemy import engine, event
    factory, writer = enginefacade._TransactionFactory, enginefacade._WRITER
    session, connection = factory._create_session, factory._create_connection

    def create_session(self, mode, bind=None):
        if mode is writer and bind is None:
            if not self._started:
                self._start()
            bind = self._writer_engine.execution_options(lab_writer=True)
        return session(self, mode, bind)

    def create_connection(self, mode):
        made = connection(self, mode)
        return (made.execution_options(lab_writer=True)
                if mode is writer else made)
    factory._create_session = create_session
    factory._create_connection = create_connection

    # A listener of the class runs before oslo.db's own of the engine, which
    # does nothing where it finds this mark.
    @event.listens_for(engine.Engine, 'begin')
    def begin(conn):
        if 'in_transaction' not in conn.info:
            conn.exec_driver_sql(
                'BEGIN IMMEDIATE' if conn.get_execution_options().get(
                    'lab_writer') else 'BEGIN')
            conn.info['in_transaction'] = True


# -- one function per project: its WSGI application and its daemons ----------
def keystone(lab, conf):
    from keystone.wsgi.api import application
    return application, []


def glance(lab, conf):
    from glance.wsgi.api import application
    return application, []


def placement(lab, conf):
    from placement.wsgi.api import application
    return application, []


def neutron(lab, conf):
    from neutron.wsgi.api import application
    from neutron import policy
    policy.init()  # see nova
    import lab_neutron
    lab_neutron.TABLE.tell()  # the switch may have been away, too
    return application, []


class AnyHost:
    """Nova detaches a volume only if CONF.host is the instance's host; here
    that is any of the several compute hosts in this process."""

    def __init__(self, conf, hosts):
        self._conf = conf
        self.host = type('Host', (str,), {
            '__eq__': lambda s, other: other in hosts,
            '__hash__': str.__hash__})(hosts[-1])

    def __getattr__(self, name):
        return getattr(self._conf, name)


def nova(lab, conf):
    from nova.wsgi.osapi_compute import application
    from nova.wsgi.metadata import application as metadata
    import nova.conf
    from nova import context, policy, service, virt
    from nova.compute import rpcapi as compute
    from nova.conductor import rpcapi as conductor
    from nova.objects import host_mapping
    from nova.scheduler import rpcapi as scheduler
    from nova.virt import block_device, node
    # Made on first use and published before it is filled: of two first
    # requests at once, one would find no rule.
    policy.init()
    # nova loads hypervisor drivers from nova.virt only
    virt.__path__.append(os.path.dirname(importlib.import_module(
        'lab_nova').__file__))
    # nova-compute gives up if these do not answer when it starts
    wait_for(lab, 'keystone', 'placement')
    node.get_local_node_uuid()  # writes a file whose absence stops a restart
    daemons = [
        service.Service.create(binary='nova-conductor',
                               topic=conductor.RPC_TOPIC),
        service.Service.create(binary='nova-scheduler',
                               topic=scheduler.RPC_TOPIC)]
    for s in daemons:
        s.start()
    hosts = COMPUTES
    block_device.CONF = AnyHost(nova.conf.CONF, hosts)
    for host in hosts:
        s = service.Service.create(
            host=host, binary='nova-compute', topic=compute.RPC_TOPIC,
            topic_alt=compute.RPC_TOPIC_ALT)
        # the driver and the resource tracker read it when they start
        nova.conf.CONF.set_override('host', host)
        s.start()
        daemons.append(s)
    host_mapping.discover_hosts(context.get_admin_context())
    return (application, metadata), daemons


def cinder(lab, conf):
    import os_brick
    from cinder.wsgi.api import application
    from cinder import policy, service
    from oslo_config import cfg
    policy.init()  # see nova
    os_brick.setup(cfg.CONF)
    # Service.service_id belongs to the class: two services in one process
    # would both report under the last one's id.
    lock, stock = threading.Lock(), service.Service.report_state

    def report_state(self):
        with lock:
            service.Service.service_id = self.origin_service_id
            stock(self)
    service.Service.report_state = report_state
    daemons = [service.Service.create(
        host=f'{cfg.CONF.host}@{name}', service_name=name,
        binary='cinder-volume', coordination=True)
        for name in cfg.CONF.enabled_backends]
    # last: it waits for the volume service to report
    daemons.append(service.Service.create(binary='cinder-scheduler'))
    for s in daemons:
        s.start()
    return application, daemons


def heat(lab, conf):
    from heat.wsgi.api import application
    from heat.engine import service, template
    from oslo_config import cfg
    template._get_template_extension_manager()  # not safe in two threads
    daemons = [service.EngineService(cfg.CONF.host, 'engine')]
    daemons[0].start()
    return application, daemons


# -- one process ---------------------------------------------------------------
def wait_for(lab, *names):
    end = time.time() + 120
    while time.time() < end and not all(
            os.path.exists(f'{lab}/run/{n}.ready') for n in names):
        time.sleep(0.05)


def logged(app, out):
    """One line per answer: time, source, user, project, what, status, agent.

    Who the caller is, the service's own middleware has found out by then.
    """
    def call(environ, start_response):
        def start(status, headers, exc_info=None):
            e = environ.get
            line = ' '.join((
                time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime()),
                e('REMOTE_ADDR', '-'), e('HTTP_X_USER_NAME') or '-',
                e('HTTP_X_PROJECT_NAME') or '-', e('REQUEST_METHOD', '-'),
                (e('lab.path') or '-'), status[:3],
                (e('HTTP_USER_AGENT') or '-').replace(' ', '_')))
            os.write(out, line.encode('utf-8', 'replace') + b'\n')
            return start_response(status, headers, exc_info)
        # mappers move parts of the path away from here
        environ['lab.path'] = environ.get('PATH_INFO')
        return app(environ, start)
    return call


def listen(host, port, app, log):
    from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    class Handler(WSGIRequestHandler):
        protocol_version = 'HTTP/1.1'
        disable_nagle_algorithm = True

        def log_request(self, code='-', size='-'):
            pass

    class Server(ThreadedWSGIServer):
        request_queue_size = 128
        daemon_threads = True
        block_on_close = False
    server = Server(host, port, logged(app, out), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def serve(lab, host, name, port):
    started = time.time()
    etc = f'{lab}/openstack/etc/{name}'
    conf = f'{etc}/{"glance-api" if name == "glance" else name}.conf'
    os.environ[f'OS_{name.upper()}_CONFIG_DIR'] = etc
    os.environ.update(OS_NEUTRON_CONFIG_FILES='neutron.conf',
                      OS_NOVA_DISABLE_EVENTLET_PATCHING='1',
                      OS_CINDER_DISABLE_EVENTLET_PATCHING='1')
    sys.argv = [name]
    if name in ('heat', 'cinder', 'neutron'):
        sys.argv += ['--config-file', conf]
    sqlite_patch()
    apps, daemons = globals()[name](lab, conf)
    for i, app in enumerate(apps if isinstance(apps, tuple) else (apps,)):
        listen(host, port + i, app,
               f'{lab}/log/{name}{"-metadata" if i else ""}.access')
    with open(f'{lab}/run/{name}.ready', 'w') as f:
        f.write('%.2f s\n' % (time.time() - started))
    stop = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *a: stop.set())
    stop.wait()
    logging.shutdown()
    os._exit(0)  # no daemon here has anything to lose


def main():
    lab, host, *specs = sys.argv[1:]
    preload()
    for spec in specs:
        name, port = spec.split(':')
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.chdir(lab)
            out = os.open(f'{lab}/log/{name}.out',
                          os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            random.seed()
            try:
                serve(lab, host, name, int(port))
            except BaseException:
                logging.getLogger().exception('died')
                import traceback
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(1)
        with open(f'/proc/{pid}/stat') as f:
            born = f.read().rsplit(') ')[1].split()[19]
        with open(f'{lab}/run/{name}.pid', 'w') as f:
            f.write(f'{pid} {born}')


if __name__ == '__main__':
    main()
