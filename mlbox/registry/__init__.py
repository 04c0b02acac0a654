"""SHARE: registries, archives and bundles: how images leave one store and reach another."""
