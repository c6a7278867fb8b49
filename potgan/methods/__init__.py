"""The methods that can be trained, by the name that a configuration gives them (`models.<name>.method`)."""

#: Name -> "module:class" within the package. The classes are named and not imported, so that the results of one method do not
#: depend on the code of another: the fingerprint of code (`potgan.pipeline.code`) follows only the method that is trained.
METHODS = {
    "potgan": "methods.potgan.method:PoTGAN",
}
