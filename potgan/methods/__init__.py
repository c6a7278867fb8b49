"""The methods that can be trained, by the name that a configuration gives them (`models.<name>.method`)."""

#: Name -> "module:class" within the package. The classes are named and not imported, so that the results of one method do not
#: depend on the code of another: the fingerprint of code (`potgan.pipeline.code`) follows only the method that is trained.
METHODS = {
    "potgan": "methods.potgan.method:PoTGAN",
    "pg2": "methods.pg2.method:PG2",
    "deformable": "methods.deformable.method:DeformableGAN",
    "vunet": "methods.vunet.method:VUNetMethod",
    "dpig": "methods.dpig.method:DPIG",
    "patn": "methods.patn.method:PATN",
    "adgan": "methods.adgan.method:ADGAN",
}
