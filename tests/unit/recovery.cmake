ph_unit_test(test_record ph_recovery)
