"""The wheel holds a program, so it is for one platform, but for every Python 3."""
from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class ProgramDistribution(Distribution):
    def has_ext_modules(self):
        return True


class ProgramWheel(bdist_wheel):
    def get_tag(self):
        return 'py3', 'none', super().get_tag()[2]


setup(distclass=ProgramDistribution, cmdclass={'bdist_wheel': ProgramWheel})
