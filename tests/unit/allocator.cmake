ph_unit_test(test_heap $<TARGET_OBJECTS:ph_heap> Threads::Threads)
ph_unit_test(test_heap_live $<TARGET_OBJECTS:ph_heap> Threads::Threads)
ph_unit_test(test_heap_threads $<TARGET_OBJECTS:ph_heap> Threads::Threads)
