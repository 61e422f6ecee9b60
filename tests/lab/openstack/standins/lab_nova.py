"""A Nova hypervisor without machines: stands in for libvirt and its hosts.

Derives from nova's own fake driver.  Adds what that lacks: instances and node
UUIDs that survive a restart, several compute hosts in one process, the config
drive as files, a console log, and a hook (lab_hook.py) at each event, which
may start a "machine" and decides whether the request succeeds.

Hook events: spawn destroy power_on power_off reboot attach_volume
detach_volume extend_volume attach_interface detach_interface.  The document:
  instance  uuid name hostname project_id user_id host zone metadata key_name
            flavor{name vcpus ram disk} image image_properties state
  dir       a directory of the instance; image in it is what glance gave,
            config-drive/ holds
            openstack/latest/{meta_data.json,user_data,network_data.json};
            what the hook writes to console.log there is the console's output
  networks  [{port mac network name mtu device subnets[{cidr gateway dns ips}]}]
  volumes   [{volume path device}]
Not imitated: live migration, resize's copy of disks, snapshots of disks.
"""
import json
import os
import shutil
import uuid

import nova.conf
from nova import exception
from nova import utils
from nova.api.metadata import base as metadata
from nova.compute import power_state
from nova.image import glance
from nova.virt import configdrive
from nova.virt import fake

import lab_hook

CONF = nova.conf.CONF
NAMESPACE = uuid.UUID('6f0d5a52-6d0f-4f0e-9a3b-0d6b3f1c1c5e')
STATES = {'running': power_state.RUNNING, 'shutdown': power_state.SHUTDOWN}


def _network(vif):
    net = vif['network']
    return {'port': vif['id'], 'mac': vif['address'], 'device': vif['devname'],
            'network': net['id'], 'name': net['label'],
            'mtu': net.get_meta('mtu'),
            'subnets': [{
                'cidr': s['cidr'],
                'gateway': s['gateway']['address'] if s['gateway'] else None,
                'dns': [d['address'] for d in s['dns']],
                'ips': [i['address'] for i in s['ips']],
            } for s in net['subnets']]}


def _volume(connection_info, device):
    data = connection_info['data']
    return {'volume': connection_info.get('serial') or data.get('volume_id'),
            'path': data.get('device_path'), 'device': device}


def _volumes(block_device_info):
    return [_volume(b['connection_info'], b['mount_device']) for b in
            (block_device_info or {}).get('block_device_mapping', ())]


class Driver(fake.FakeDriver):

    # -- hosts -----------------------------------------------------------
    def _uuid(self, node):
        return str(uuid.uuid5(NAMESPACE, node))

    def get_nodenames_by_uuid(self, refresh=False):
        return {self._uuid(n): n for n in self.get_available_nodes()}

    def get_available_resource(self, nodename):
        resources = super().get_available_resource(nodename)
        resources['uuid'] = self._uuid(nodename)
        return resources

    def init_host(self, host):
        super().init_host(host)
        root = os.path.join(CONF.state_path, 'instances')
        for name in os.listdir(root) if os.path.isdir(root) else ():
            try:
                with open(os.path.join(root, name, 'instance.json')) as f:
                    i = json.load(f)['instance']
            except OSError:
                continue
            if i['host'] != host:
                continue
            self.resources.claim(i['flavor']['vcpus'], i['flavor']['ram'],
                                 i['flavor']['disk'])
            self.instances[i['uuid']] = fake.FakeInstance(
                i['name'], STATES[i['state']], i['uuid'])

    # -- the hook ----------------------------------------------------------
    def _dir(self, instance):
        return os.path.join(CONF.state_path, 'instances', instance.uuid)

    def _event(self, event, instance, networks=(), volumes=(), state=None):
        here = os.path.join(self._dir(instance), 'instance.json')
        if state is None:
            try:
                with open(here) as f:
                    state = json.load(f)['instance']['state']
            except OSError:
                state = 'shutdown'
        flavor = instance.flavor
        document = {
            'instance': {
                'uuid': instance.uuid, 'name': instance.display_name,
                'hostname': instance.hostname, 'host': self._host,
                'project_id': instance.project_id,
                'user_id': instance.user_id, 'state': state,
                'zone': instance.availability_zone,
                'metadata': dict(instance.metadata or {}),
                'key_name': instance.key_name, 'image': instance.image_ref,
                # every property, while image_meta holds those that nova knows
                'image_properties': utils.get_image_from_system_metadata(
                    instance.system_metadata).get('properties', {}),
                'flavor': {'name': flavor.name, 'vcpus': flavor.vcpus,
                           'ram': flavor.memory_mb, 'disk': flavor.root_gb}},
            'dir': self._dir(instance),
            'networks': [_network(v) for v in networks or ()],
            'volumes': list(volumes)}
        lab_hook.run(event, **document)
        if event != 'destroy':
            with open(here + '.new', 'w') as f:
                json.dump(document, f, indent=1)
            os.rename(here + '.new', here)

    def _config_drive(self, instance, files, password, networks):
        md = metadata.InstanceMetadata(
            instance, content=files, network_info=networks,
            extra_md={'admin_pass': password} if password else None)
        top = os.path.join(self._dir(instance), 'config-drive')
        for path, data in md.metadata_for_config_drive():
            if path.startswith('openstack/2') or path.startswith('ec2/2'):
                continue  # "latest" will do
            path = os.path.join(top, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'wb') as f:
                f.write(data if isinstance(data, bytes) else data.encode())

    # -- life --------------------------------------------------------------
    def spawn(self, context, instance, image_meta, injected_files,
              admin_password, allocations, network_info=None,
              block_device_info=None, power_on=True, accel_info=None):
        os.makedirs(self._dir(instance), exist_ok=True)
        if instance.image_ref:
            glance.API().download(
                context, instance.image_ref,
                dest_path=os.path.join(self._dir(instance), 'image'))
        if configdrive.required_by(instance):
            self._config_drive(instance, injected_files, admin_password,
                               network_info)
        try:
            self._event('spawn', instance, network_info,
                        _volumes(block_device_info),
                        'running' if power_on else 'shutdown')
        except lab_hook.HookFailed as ex:
            # any other exception, and nova tries the next host
            raise exception.BuildAbortException(
                instance_uuid=instance.uuid, reason=str(ex))
        super().spawn(context, instance, image_meta, injected_files,
                      admin_password, allocations, network_info,
                      block_device_info, power_on, accel_info)

    def destroy(self, context, instance, network_info, block_device_info=None,
                destroy_disks=True, destroy_secrets=True):
        self._event('destroy', instance, network_info,
                    _volumes(block_device_info))
        for vif in network_info or ():
            self._interfaces.pop(vif['id'], None)
        super().destroy(context, instance, network_info, block_device_info,
                        destroy_disks, destroy_secrets)
        shutil.rmtree(self._dir(instance), ignore_errors=True)

    def power_off(self, instance, timeout=0, retry_interval=0):
        self._event('power_off', instance, state='shutdown')
        super().power_off(instance, timeout, retry_interval)

    def power_on(self, context, instance, network_info,
                 block_device_info=None, accel_info=None, share_info=None):
        self._event('power_on', instance, network_info,
                    _volumes(block_device_info), 'running')
        super().power_on(context, instance, network_info, block_device_info,
                         accel_info, share_info)

    def reboot(self, context, instance, network_info, reboot_type,
               block_device_info=None, bad_volumes_callback=None,
               accel_info=None, share_info=None):
        self._event('reboot', instance, network_info,
                    _volumes(block_device_info), 'running')
        self.instances[instance.uuid].state = power_state.RUNNING

    # -- devices -------------------------------------------------------------
    def default_root_device_name(self, instance, image_meta, root_bdm):
        return '/dev/vda'  # and so /dev/vdb for the first volume

    def get_volume_connector(self, instance):
        return dict(super().get_volume_connector(instance),
                    os_type='linux', platform='x86_64')

    def attach_volume(self, context, connection_info, instance, mountpoint,
                      disk_bus=None, device_type=None, encryption=None):
        self._event('attach_volume', instance,
                    volumes=[_volume(connection_info, mountpoint)])
        super().attach_volume(context, connection_info, instance, mountpoint,
                              disk_bus, device_type, encryption)

    def detach_volume(self, context, connection_info, instance, mountpoint,
                      encryption=None):
        self._event('detach_volume', instance,
                    volumes=[_volume(connection_info, mountpoint)])
        super().detach_volume(context, connection_info, instance, mountpoint,
                              encryption)

    def extend_volume(self, context, connection_info, instance,
                      requested_size):
        self._event('extend_volume', instance, volumes=[
            dict(_volume(connection_info, None), size=requested_size)])

    def attach_interface(self, context, instance, image_meta, vif):
        self._event('attach_interface', instance, [vif])
        super().attach_interface(context, instance, image_meta, vif)

    def detach_interface(self, context, instance, vif):
        self._event('detach_interface', instance, [vif])
        self._interfaces.pop(vif['id'], None)

    def get_console_output(self, context, instance):
        try:
            with open(os.path.join(self._dir(instance), 'console.log'),
                      'rb') as f:
                return f.read()[-100000:]
        except OSError:
            return b''
