"""The methods that can be trained, by the name that a configuration gives them (`models.<name>.method`)."""

#: Name -> "module:class" within the package. They are named and not imported, so that one method's results do not depend on
#: the code of another: the fingerprint of code (`potgan.pipeline.code`) follows the method that is trained and no other.
METHODS = {
    "potgan": "methods.potgan.method:PoTGAN",
}
