//! One model of a load balancer, a pure diff, and drivers of devices.
