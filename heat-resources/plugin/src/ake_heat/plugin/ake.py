"""AKE's resources for Heat: classes made from what `ake-heat schema` prints.

Each step of a resource's life is one run of that program: a request in JSON on its standard input, an
answer on its standard output, a sentence on its standard error if it fails. It knows the resources; here is
only how Heat's life cycle maps onto it, without ever blocking the engine.
"""
import hashlib
import json
import os
import signal
import subprocess
import threading
import time

from heat.common import exception
from heat.common.i18n import _
from heat.engine import attributes
from heat.engine import constraints
from heat.engine import properties
from heat.engine import resource
from heat.engine import scheduler
from heat.engine import support
from heat.engine import translation
from oslo_config import cfg

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'bin', 'ake-heat')
DEADLINE = 120  # seconds for one run; what takes longer is asked for again
ATTRIBUTES, HIDDEN = 'attributes', 'hidden_digest'  # keys of a resource's data that are ours


def environment():
    """The engine's own has secrets; the program needs none of it."""
    return {name: os.environ[name] for name in ('PATH', 'AKE_HEAT_CONFIG') if name in os.environ}


class Run:
    """The program at work. A thread feeds and reads it: pipes are small."""

    def __init__(self, request):
        self.process = subprocess.Popen(
            [PROGRAM, 'run'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, env=environment(), cwd='/')
        self.timed_out, self.out, self.err = False, '', ''
        self.thread = threading.Thread(target=self._talk, args=(json.dumps(request),), daemon=True)
        self.thread.start()

    def _talk(self, text):
        try:
            self.out, self.err = self.process.communicate(text, DEADLINE)
        except subprocess.TimeoutExpired:
            self.timed_out = True
            self.kill()
            self.out, self.err = self.process.communicate()

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def result(self):
        """None while it works; its answer; or its complaint, raised."""
        if self.thread.is_alive():
            return None
        if self.timed_out:
            raise exception.Error(_('ake-heat gave no answer within %d s') % DEADLINE)
        if self.process.returncode:
            raise exception.Error(self.err.strip()[-1000:] or _(
                'ake-heat ended with status %d') % self.process.returncode)
        return json.loads(self.out)


class Action:
    """One action of a resource: a first run, and more until it is done."""

    def __init__(self, owner, verb, props):
        self.owner, self.verb, self.props = owner, verb, props
        self.begun = self.due = time.monotonic()
        self.run = Run(owner.request(verb, props, 0))

    def cancel(self):
        if self.run is not None:
            self.run.kill()

    def done(self):
        if self.run is None:
            if time.monotonic() < self.due:
                return False
            self.run = Run(self.owner.request('check-' + self.verb, self.props, time.monotonic() - self.begun))
            return False
        answer = self.run.result()
        if answer is None:
            return False
        self.run = None
        self.owner.keep(answer)
        if not answer['done']:
            self.due = time.monotonic() + answer['again']
            raise scheduler.PollDelay(max(1, answer['again']))
        return True


def given(value):
    """Without what the template leaves out."""
    if isinstance(value, dict):
        return {name: given(part) for name, part in value.items() if part is not None}
    return [given(part) for part in value] if isinstance(value, (list, tuple)) else value


class AkeResource(resource.Resource):
    """What all of them have in common; `kind` is their description."""

    kind = None
    support_status = support.SupportStatus(version='1.0.0')
    requires_deferred_auth = True
    always_replace_on_check_failed = False
    mend = False

    def translation_rules(self, props):
        return [translation.TranslationRule(
            props, translation.TranslationRule.RESOLVE, [prop['name']],
            client_plugin=self.client_plugin(prop['translate']['client']),
            finder=prop['translate']['finder'], entity=prop['translate']['entity'])
            for prop in self.kind['properties'] if 'translate' in prop]

    def hidden(self, props):
        """Values of the hidden parameters that properties name."""
        values = {}
        for name in (prop['name'] for prop in self.kind['properties'] if prop['hidden_parameter']):
            parameter = self.stack.parameters.params.get(props[name])
            if parameter is None or not parameter.hidden() or self.stack.owner_id:
                raise exception.StackValidationFailed(message=_(
                    '%(name)s: %(value)s: expected the name of a hidden parameter of the root stack, which this '
                    'resource stands in') % {'name': name, 'value': props[name]})
            values[name] = str(parameter.value())
        return values

    def digest(self, props):
        return hashlib.sha256(json.dumps(self.hidden(props), sort_keys=True).encode()).hexdigest()

    def validate(self):
        super().validate()
        self.hidden(self.properties)

    def request(self, verb, props, waited):
        ctx, data = self.context, self.data()
        return {
            'verb': verb, 'type': self.kind['name'], 'resource_id': self.resource_id,
            'physical_name': self.physical_resource_name(), 'waited': waited,
            'stack': {'id': self.stack.id, 'name': self.stack.name, 'root_id': self.stack.root_stack_id()},
            'cloud': {'auth_url': ctx.keystone_v3_endpoint, 'token': ctx.keystone_session.get_token(),
                      'region': ctx.region_name or cfg.CONF.region_name_for_services,
                      'project_id': ctx.project_id},
            'properties': {name: value for name, value in given(dict(props)).items() if value is not None},
            'hidden': {} if 'delete' in verb else self.hidden(props),
            'secrets': {name: value for name, value in data.items() if name not in (ATTRIBUTES, HIDDEN)}}

    def keep(self, answer):
        if 'attributes' in answer:
            self.data_set(ATTRIBUTES, json.dumps(answer['attributes']))
        for name, value in answer.get('secrets', {}).items():
            self.data_set(name, value, redact=True)
        if 'event' in answer:
            self._add_event(self.action, self.status, answer['event'])

    def handle_create(self):
        root = self.kind['reference'] == 'root-stack'
        # Before anything exists, so that a create that is cut short can be deleted.
        self.resource_id_set(self.stack.root_stack_id() if root else self.uuid)
        return Action(self, 'create', self.properties)

    def check_create_complete(self, action):
        if not action.done():
            return False
        self.data_set(HIDDEN, self.digest(action.props), redact=True)
        return True

    def _needs_update(self, after, before, after_props, before_props, *args, **kw):
        needed = super()._needs_update(after, before, after_props, before_props, *args, **kw)
        # A FAILED resource whose properties did not change would become COMPLETE with nothing done; and a
        # hidden parameter's new value is no change of the property that names it.
        self.mend = self.status == self.FAILED or self.digest(after_props) != self.data().get(HIDDEN)
        return needed or self.mend

    def needs_replace_failed(self):
        return self.resource_id is None  # else an update mends it

    def handle_update(self, json_snippet, tmpl_diff, prop_diff):
        if prop_diff or self.mend:
            return Action(self, 'update', json_snippet.properties(self.properties_schema, self.context))

    def check_update_complete(self, action):
        return action is None or self.check_create_complete(action)

    def handle_delete(self):
        if self.resource_id is not None:
            return Action(self, 'delete', self.properties)

    def check_delete_complete(self, action):
        return action is None or action.done()

    def handle_check(self):
        return Action(self, 'live-state', self.properties)

    def check_check_complete(self, action):
        return action.done()

    def handle_create_cancel(self, action):
        if action is not None:
            action.cancel()

    handle_update_cancel = handle_delete_cancel = handle_create_cancel

    def _resolve_attribute(self, name):
        data = self.data()
        sealed = any(attribute['name'] == name and attribute['sealed'] for attribute in self.kind['attributes'])
        if sealed:
            return json.loads(data.get(name, 'null'))
        return json.loads(data.get(ATTRIBUTES, '{}')).get(name)

    def _show_resource(self):
        return json.loads(self.data().get(ATTRIBUTES, '{}'))


def property_schema(prop):
    fields = {field['name']: property_schema(field) for field in prop.get('fields', [])}
    return properties.Schema(
        getattr(properties.Schema, prop['type'].upper()), prop['description'], default=prop.get('default'),
        required=prop['required'], update_allowed=prop['change'] == 'updates',
        immutable=prop['change'] == 'refused',
        constraints=[getattr(constraints, c['class'])(**c['arguments']) for c in prop['constraints']],
        schema=property_schema(prop['items']) if 'items' in prop else fields or None)


def resource_class(kind):
    return type(kind['name'].replace('::', ''), (AkeResource,), {
        '__doc__': kind['description'], '__module__': __name__, 'kind': kind,
        'properties_schema': {prop['name']: property_schema(prop) for prop in kind['properties']},
        'attributes_schema': {attribute['name']: attributes.Schema(
            attribute['description'], type=getattr(attributes.Schema, attribute['type'].upper()),
            cache_mode=attributes.Schema.CACHE_NONE) for attribute in kind['attributes']}})


def resource_mapping():
    kinds = json.loads(subprocess.run(
        [PROGRAM, 'schema'], check=True, capture_output=True, env=environment(), timeout=DEADLINE).stdout)
    return {kind['name']: resource_class(kind) for kind in kinds}
