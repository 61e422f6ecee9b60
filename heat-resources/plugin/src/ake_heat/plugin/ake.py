"""AKE's resources for Heat: classes made from what `ake-heat schema` prints.

Each step of a resource's life is one run of that program: a request in JSON on its standard input, an
answer on its standard output, a sentence on its standard error if it fails. It knows the resources; here is
only how Heat's life cycle maps onto it, without ever blocking the engine.
"""
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import threading
import time

from heat.common import exception
from heat.engine import attributes, constraints, properties, resource, support, translation
from oslo_config import cfg

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'bin', 'ake-heat')
DEADLINE = 120  # seconds for one run; what takes longer is asked for again
# The engine's own environment has secrets; the program needs none of it.
ENVIRONMENT = {name: os.environ[name] for name in ('PATH', 'AKE_HEAT_CONFIG') if name in os.environ}
ATTRIBUTES, HIDDEN = 'attributes', 'hidden_digest'  # keys of a resource's data that are ours


class Action:
    """Runs of the program until it says that it is done; a thread feeds and reads each, as pipes are small."""

    def __init__(self, owner, verb, props):
        self.owner, self.verb, self.props, self.begun = owner, verb, props, time.monotonic()
        self.start(verb)

    def start(self, verb):
        request = json.dumps(self.owner.request(verb, self.props, time.monotonic() - self.begun))
        self.process = subprocess.Popen(
            [PROGRAM, 'run'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, env=ENVIRONMENT, cwd='/')
        self.late, self.out, self.err = False, '', ''
        self.thread = threading.Thread(target=self.talk, args=(self.process, request), daemon=True)
        self.thread.start()

    def talk(self, process, request):
        try:
            self.out, self.err = process.communicate(request, DEADLINE)
        except subprocess.TimeoutExpired:
            self.late = True
            self.cancel()
            process.communicate()

    def cancel(self):
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def done(self):
        if self.process is None:
            self.start('check-' + self.verb)
        if self.thread.is_alive():
            return False
        if self.late:
            raise exception.Error(f'ake-heat gave no answer within {DEADLINE} s')
        if self.process.returncode:
            raise exception.Error(self.err.strip()[-1000:] or f'ake-heat ended: {self.process.returncode}')
        answer, self.process = json.loads(self.out), None
        self.owner.keep(answer)
        if not answer['done']:
            raise resource.PollDelay(max(1, answer['again']))
        return True


def given(value):  # without what the template leaves out
    if isinstance(value, dict):
        return {name: given(part) for name, part in value.items() if part is not None}
    return [given(part) for part in value] if isinstance(value, (list, tuple)) else value


class AkeResource(resource.Resource):
    kind = None  # what the program declares of it
    support_status = support.SupportStatus(version='1.0.0')
    requires_deferred_auth = True
    always_replace_on_check_failed = False

    def translation_rules(self, props):
        return [translation.TranslationRule(
            props, translation.TranslationRule.RESOLVE, [prop['name']],
            client_plugin=self.client_plugin(prop['translate']['client']),
            finder=prop['translate']['finder'], entity=prop['translate']['entity'])
            for prop in self.kind['properties'] if 'translate' in prop]

    def hidden(self, props):
        values = {}  # of the parameters, by the properties that name them
        for name in (prop['name'] for prop in self.kind['properties'] if prop['hidden_parameter']):
            parameter = self.stack.parameters.params.get(props[name])
            if parameter is None or not parameter.hidden() or self.stack.owner_id:
                raise exception.StackValidationFailed(
                    message=f'{name}: {props[name]}: expected a hidden parameter of the root stack, where this stands')
            values[name] = str(parameter.value())
        return values

    def digest(self, props):
        return hashlib.sha256(json.dumps(self.hidden(props), sort_keys=True).encode()).hexdigest()

    def validate(self):
        super().validate()
        self.hidden(self.properties)

    def request(self, verb, props, waited):
        ctx = self.context
        return {
            'verb': verb, 'type': self.kind['name'], 'resource_id': self.resource_id, 'waited': waited,
            'stack': {'id': self.stack.id, 'name': self.stack.name, 'root_id': self.stack.root_stack_id()},
            'cloud': {'auth_url': ctx.keystone_v3_endpoint, 'token': ctx.keystone_session.get_token(),
                      'region': ctx.region_name or cfg.CONF.region_name_for_services, 'project_id': ctx.project_id},
            'properties': given(dict(props)),
            'hidden': {} if 'delete' in verb else self.hidden(props),
            'secrets': {name: value for name, value in self.data().items() if name not in (ATTRIBUTES, HIDDEN)}}

    def keep(self, answer):
        if 'attributes' in answer:
            self.data_set(ATTRIBUTES, json.dumps(answer['attributes']))
        for name, value in answer.get('secrets', {}).items():
            self.data_set(name, value, redact=True)
        if 'event' in answer:
            self._add_event(self.action, self.status, answer['event'])

    def handle_create(self):
        # Before anything exists, so that a create that is cut short can be deleted.
        self.resource_id_set(
            self.stack.root_stack_id() if self.kind['reference'] == 'root-stack' else self.uuid)
        return Action(self, 'create', self.properties)

    def check_create_complete(self, action):
        done = action.done()
        if done:
            self.data_set(HIDDEN, self.digest(action.props), redact=True)
        return done

    def _needs_update(self, after, before, after_props, before_props, *args, **kw):
        needed = super()._needs_update(after, before, after_props, before_props, *args, **kw)
        # A FAILED resource whose properties did not change would become COMPLETE with nothing done; and a
        # hidden parameter's new value is no change of the property that names it.
        return needed or self.status == self.FAILED or self.digest(after_props) != self.data().get(HIDDEN)

    def needs_replace_failed(self):
        return self.resource_id is None  # else an update mends it

    def handle_update(self, json_snippet, tmpl_diff, prop_diff):
        return Action(self, 'update', json_snippet.properties(self.properties_schema, self.context))

    check_update_complete = check_create_complete

    def handle_delete(self):
        return Action(self, 'delete', self.properties) if self.resource_id is not None else None

    def check_delete_complete(self, action):
        return action is None or action.done()

    def handle_check(self):
        return Action(self, 'live-state', self.properties)

    check_check_complete = check_delete_complete

    def handle_create_cancel(self, action):
        return action and action.cancel()

    handle_update_cancel = handle_delete_cancel = handle_create_cancel

    def _resolve_attribute(self, name):
        if any(attribute['name'] == name and attribute['sealed'] for attribute in self.kind['attributes']):
            return json.loads(self.data().get(name, 'null'))
        return self._show_resource().get(name)

    def _show_resource(self):
        return json.loads(self.data().get(ATTRIBUTES, '{}'))


def property_schema(prop):
    fields = {field['name']: property_schema(field) for field in prop.get('fields', [])}
    return properties.Schema(
        getattr(properties.Schema, prop['type'].upper()), prop['description'], default=prop.get('default'),
        required=prop['required'], update_allowed=prop['change'] == 'updates', immutable=prop['change'] == 'refused',
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
        [PROGRAM, 'schema'], check=True, capture_output=True, env=ENVIRONMENT, timeout=DEADLINE).stdout)
    return {kind['name']: resource_class(kind) for kind in kinds}
