import procpool

project = "procpool"
copyright = "2026, the procpool authors"
version = release = procpool.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
myst_heading_anchors = 3
default_role = "code"
intersphinx_mapping = {}
