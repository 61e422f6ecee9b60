"""Runs the lab's hook: HOOK EVENT, a JSON document on its standard input.

The hook is the world behind the control plane.  Its exit status decides: 0,
and nova or neutron goes on; anything else, and the request fails with the
last line of its standard error as the fault that the tenant sees.
"""
import json
import shlex
import subprocess

from oslo_config import cfg
from oslo_log import log

LOG = log.getLogger(__name__)
CONF = cfg.CONF
CONF.register_opts([cfg.StrOpt('hook', default=''),
                    cfg.IntOpt('hook_timeout', default=120)], 'lab')


class HookFailed(Exception):
    pass


def run(event, **document):
    if not CONF.lab.hook:
        return
    try:
        p = subprocess.run([*shlex.split(CONF.lab.hook), event],
                           input=json.dumps(dict(document, event=event)),
                           text=True, capture_output=True,
                           timeout=CONF.lab.hook_timeout)
    except (OSError, subprocess.TimeoutExpired) as ex:
        raise HookFailed(f'hook {event}: {ex}') from ex
    if p.stdout or p.stderr:
        LOG.info('hook %s: %s%s', event, p.stdout, p.stderr)
    if p.returncode:
        why = p.stderr.strip().splitlines() or [f'status {p.returncode}']
        raise HookFailed(f'hook {event}: {why[-1]}')
