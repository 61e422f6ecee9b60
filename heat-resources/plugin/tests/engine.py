"""Heat's engine in this process: its database in memory, the plugin loaded as heat-engine loads it.

Needs a virtual environment that has openstack-heat; AKE_HEAT_PLUGIN is the folder that heat.conf's
plugin_dirs would name.
"""
import os
import pathlib

from oslo_service import backend
backend.init_backend(backend.BackendType.THREADING)

from heat.common import context  # noqa: E402
from heat.common import messaging  # noqa: E402
from heat.db import api as db_api  # noqa: E402
from heat.db import models  # noqa: E402
from heat.engine import environment  # noqa: E402
from heat.engine import resources  # noqa: E402
from heat.engine import stack  # noqa: E402
from heat.engine import template  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_db import options  # noqa: E402

PLUGIN = pathlib.Path(os.environ['AKE_HEAT_PLUGIN'])
PROGRAM = PLUGIN.parent / 'bin' / 'ake-heat'
TEMPLATES = pathlib.Path(__file__).resolve().parents[3] / 'templates'


def start():
    options.set_defaults(cfg.CONF, connection='sqlite://')
    cfg.CONF([], project='heat', default_config_files=[])
    cfg.CONF.set_override('plugin_dirs', [str(PLUGIN)])
    cfg.CONF.set_override('encrypt_parameters_and_properties', True)
    cfg.CONF.set_override('deferred_auth_method', 'password')
    models.BASE.metadata.create_all(db_api.get_engine())
    messaging.setup('fake://', optional=True)
    resources.initialise()


def dummy_context():
    return context.RequestContext.from_dict({
        'tenant_id': 'project', 'tenant': 'demo', 'username': 'demo', 'user_id': 'user', 'roles': ['member'],
        'password': 'secret', 'is_admin': False, 'auth_url': 'http://keystone.test/v3', 'auth_token': 'token',
        'region_name': 'RegionOne'})


def make(text, name='demo', files=None, **given):
    """A stack, not created."""
    env = environment.Environment({'parameters': given})
    return stack.Stack(dummy_context(), name, template.Template(text, files=files, env=env))
