package initmode

// MakeRootfs is for the tests of package initmode_test, which import package
// oci, as this package must not.
var MakeRootfs = makeRootfs
