ph_unit_test(test_record ph_recovery)
ph_unit_test(test_cpu ph_recovery)
