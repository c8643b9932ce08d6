ph_unit_test(test_hook_python_abi)
target_sources(test_hook_python_abi PRIVATE ${CMAKE_SOURCE_DIR}/pyhook/python_abi.c)
ph_unit_test(test_hook_virtual_pid Threads::Threads)
target_sources(test_hook_virtual_pid PRIVATE ${CMAKE_SOURCE_DIR}/pyhook/virtual_pid.c)
