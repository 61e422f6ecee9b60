"""The Heat plugin of AKE (`plugin/ake.py`, for heat.conf's plugin_dirs) and its program (`bin/ake-heat`)."""
