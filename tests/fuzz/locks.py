"""Locks of other tools with one of everything that their readers know."""

A = "a" * 64
UV = f"""version = 1
requires-python = ">=3.9"
[[package]]
name = "app"
source = {{ virtual = "." }}
dependencies = [{{ name = "x", extra = ["e"], marker = "python_version >= '3'" }}]
[package.optional-dependencies]
e = [{{ name = "y" }}]
[package.dev-dependencies]
dev = [{{ name = "y", version = "1.0" }}]
[[package]]
name = "x"
version = "1.0"
source = {{ registry = "https://i.example" }}
sdist = {{ url = "https://i.example/x-1.0.tar.gz", hash = "sha256:{A}", size = 1 }}
wheels = [{{ url = "https://i.example/x-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
[[package]]
name = "y"
version = "1.0"
source = {{ git = "https://i.example/y?rev=main#{"b" * 40}" }}
"""
POETRY = f"""[[package]]
name = "x"
version = "1.0"
optional = false
python-versions = ">=3.8"
groups = ["main", "dev"]
markers = "extra == \\"e\\""
files = [{{ file = "x-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
[package.dependencies]
y = {{ version = ">=1", optional = true, markers = "python_version < \\"4\\"" }}
[package.source]
type = "legacy"
url = "https://i.example"
reference = "i"
[extras]
e = ["x"]
[metadata]
lock-version = "2.1"
python-versions = "*"
content-hash = ""
"""
PDM = f"""[metadata]
groups = ["default", "dev"]
strategy = ["inherit_metadata"]
lock_version = "4.5.0"
content_hash = "sha256:"
[[metadata.targets]]
requires_python = ">=3.9"
[[package]]
name = "x"
version = "1.0"
requires_python = ">=3.8"
groups = ["default", "dev"]
marker = "python_version > '3'"
dependencies = ["y[e]>=1; sys_platform == 'linux'"]
files = [{{ url = "https://i.example/x-1.0-py3-none-any.whl", hash = "sha256:{A}" }}]
"""
PYLOCK = f"""lock-version = "1.0"
created-by = "test"
requires-python = ">=3.9"
environments = ["sys_platform == 'linux'"]
extras = ["e"]
dependency-groups = ["dev"]
[[packages]]
name = "x"
version = "1.0"
marker = "'e' in extras or 'dev' in dependency_groups"
dependencies = [{{ name = "y" }}]
[[packages.wheels]]
url = "https://i.example/x-1.0-py3-none-any.whl"
hashes = {{ sha256 = "{A}" }}
[[packages]]
name = "y"
[packages.vcs]
type = "git"
url = "https://i.example/y"
commit-id = "{"b" * 40}"
"""
PIPENV = f"""{{"_meta": {{"pipfile-spec": 6, "hash": {{"sha256": "{A}"}}, "requires": {{"python_version": "3.11"}},
"sources": [{{"name": "i", "url": "https://i.example", "verify_ssl": true}}]}}, "default": {{"x": {{"version": "==1.0",
"hashes": ["sha256:{A}"], "markers": "python_version >= '3'", "index": "i"}}}},
"develop": {{"y": {{"git": "https://i.example/y", "ref": "{"b" * 40}"}}}}}}"""
_CONDA_FILE = "https://c.example/conda-forge/linux-64/zlib-1.3-h1_0.conda"
CONDA_LOCK = f"""version: 1
metadata:
  platforms: [linux-64]
package:
- name: zlib
  version: '1.3'
  manager: conda
  platform: linux-64
  dependencies: {{libgcc: '>=13'}}
  url: {_CONDA_FILE}
  hash: {{md5: {"c" * 32}, sha256: {A}}}
  category: main
  optional: false
- {{name: six, version: '1', manager: pip, platform: linux-64, dependencies: {{}}, category: dev,
   url: 'https://i.example/six-1-py3-none-any.whl', hash: {{sha256: {A}}}}}
"""
PIXI = f"""version: 6
environments:
  default:
    channels: [{{url: 'https://c.example/conda-forge/'}}]
    indexes: ['https://i.example/simple']
    packages:
      linux-64:
      - conda: {_CONDA_FILE}
      - pypi: https://i.example/six-1-py3-none-any.whl
packages:
- conda: {_CONDA_FILE}
  sha256: {A}
  depends: [libgcc >=13]
- {{pypi: 'https://i.example/six-1-py3-none-any.whl', name: six, version: '1', sha256: {A}, requires_dist: [x>1]}}
"""
EXPLICIT = f"""# platform: linux-64
@EXPLICIT
{_CONDA_FILE}#{"c" * 32}
# pip six @ https://i.example/six-1-py3-none-any.whl --hash=sha256:{A}
"""
