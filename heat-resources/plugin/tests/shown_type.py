"""shown_type.py TYPE: what `openstack orchestration resource type show` would print, by Heat's own code.
See engine.py for what it needs.
"""
import json
import sys

import engine
from heat.engine import service

engine.start()
shown = service.EngineService('host', 'topic').resource_schema(engine.dummy_context(), sys.argv[1])
json.dump(shown, sys.stdout)
