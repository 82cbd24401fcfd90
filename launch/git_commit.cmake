# Writes OUTPUT with the commit of SOURCE.  Run at every build; the file is touched only when the
# commit changes, so that nothing is compiled again for nothing.
cmake_policy(VERSION 3.25)
execute_process(COMMAND git describe --always --abbrev=12 --dirty --exclude=*
  WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
  ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit "unknown")
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define GR_GIT_COMMIT \"@commit@\"\n" @ONLY)
